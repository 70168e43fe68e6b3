"""The files a learner fills in: `python -m lessons start N` copies one into the current folder."""
