"""Step pairs: a sampling rule and the inversion rule that undoes it. A step is a pure function of its arguments."""
