"""What a calibration times, in processes of its own: products, kernels, busy cores, collectives and messages.

Nothing here trains in parallel: of what is to be predicted nothing is measured.
"""
