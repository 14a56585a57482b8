"""Published certificates of ten-class networks, all of them real-valued."""

PUBLISHED: dict[str, list[tuple[str, str, float, float]]] = {
    "mnist": [
        ("PBB 2021, data-free", "gibbs", 0.3155, 0.0951),
        ("Recursive PAC-Bayes 2024", "gibbs", 0.1857, 0.0955),
        ("PBB 2021, learned 50%", "gibbs", 0.0155, 0.0127),
        ("PBB, corrected re-run", "gibbs", 0.0369, 0.0108),
        ("Viallard et al. 2024, 50%", "single", 0.012, 0.006),
    ],
    "fashion_mnist": [
        ("Viallard et al. 2024, 50%", "single", 0.110, 0.104),
        ("PBB, corrected re-run", "gibbs", 0.1674, 0.0931),
    ],
    "cifar10": [("Viallard et al. 2024, 50-70%", "single", 0.304, 0.281)],
}
"""Source, predictor, certificate and test error: Pérez-Ortiz et al. (2021),
https://arxiv.org/abs/2007.12911; Wu et al. (2024), https://arxiv.org/abs/2405.14681; Viallard et
al. (2024), https://arxiv.org/abs/2102.08649."""

ONLY_CERTIFICATE: dict[str, list[tuple[str, str, float]]] = {
    "mnist": [("Lotfi et al. 2022, data-free", "single", 0.116)],
    "cifar10": [("PBB, corrected re-run", "gibbs", 0.4722)],
}
"""The same without a test error beside it; Lotfi et al.: https://arxiv.org/abs/2211.13609."""

PBB_DRAWS = 150_000
"""Networks that PBB draws for one certificate, each evaluated on all certification points."""
