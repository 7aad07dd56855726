"""Where a figure becomes an alarm or worth a word: shared by the verdict and by the text that explains it."""

# A model has collapsed when one label makes up at least this share of its answers …
COLLAPSE_SHARE = 0.9
# … and at least this much more than its share of the gold answers (a test set that is 95 % "a" proves nothing).
COLLAPSE_EXCESS = 0.25

# With less than this of its probability on the labels, or answers to less than this share of the questions, a model has
# not learned the form of an answer.
LOW_LABEL_MASS = 0.5
LOW_ANSWERED = 0.5

# Worth a word though no collapse: one label on at least half of the answers, with the same excess over gold …
LEANING_SHARE = 0.5
# … or answers that are further from gold's distribution than the base model's, by this share of them.
LEANING_DISTANCE = 0.25

# Of fewer pairs no signed-rank test can have p < 0.05: all five of five changed the same way is 2 / 2⁵.
FEWEST_PAIRS = 6
