"""How answers are judged: each NN_topic.py has EXERCISES, one Exercise for each function that a learner writes."""
