"""Published measurements of training steps, each predicted, and how far off the predictions are."""
