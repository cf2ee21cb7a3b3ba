"""What can be told before any work, without torch: the rules that the library and every door hold alike.

`rules` are one function a rule, `known` is what can be known of a model before it is loaded.
"""
