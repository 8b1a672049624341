"""The lists of insights of each data set, and the texts that ask a language model for more."""
