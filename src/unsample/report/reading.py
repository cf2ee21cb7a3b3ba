"""How the report is to be read, in the sentences that stand on it."""

READING = (
    "Means are over the items that all methods of a table finished (n in the head of the column); medians are over all "
    "items of a method, and one that diverged counts as worse than any value.",
    "In brackets: 95 % intervals by the percentile bootstrap over items, 2,000 draws, seeded.",
    "In bold: every method whose paired interval against the best one, over the items that both finished, includes "
    "zero. A method that diverged more often than chance allows is neither best nor bold.",
    "PSNR is given as the PSNR of the mean MSE and as the median. Exact pictures are neither dropped nor capped: they "
    "count as MSE 0 in the first, as infinite in the second.",
    "Reconstruction from the record plays back all that a method stored, which may hold the picture itself: it is not "
    "ranked, and rows exact by construction are marked. Only reconstruction from the noise alone compares methods.",
    "Baselines rank nothing; they say what a number is worth.",
)
