"""The noise levels, predictions, the walk and the step pairs: what inversion is, without a model."""
