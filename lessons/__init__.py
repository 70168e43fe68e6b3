"""Lessons: read one, run its experiment, do its exercises. `python -m lessons list` shows them.

NN_topic.py is a lesson in percent format, exercises/NN_topic.py what the learner fills in, checks/NN_topic.py how the
answers are judged. The other modules are the runner.
"""
