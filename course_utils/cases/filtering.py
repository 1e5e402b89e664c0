"""Built in lesson 11, filtering.

Generated from notebooks/11_filtering.ipynb: edit it there, then run make notebooks.
"""

from course_utils.defenses.filters import activation_clustering, deep_knn, spectral_signatures
from course_utils.defenses.sanitizers import sanitizer
from course_utils.trials import Case, Victim


def filters(case: Case, told: int) -> dict[str, Victim]:
    """Each filter as a defender sets it who is told how many poisons a class may hold."""
    share = min(1.5 * told * len(case.data.classes) / len(case.data), 0.9)
    defenses = {
        "loss": sanitizer("loss"),
        "four sanitizers": sanitizer("sphere", "slab", "loss", "k-NN"),
        "Spectral Signatures": spectral_signatures(share),
        "Spectral, uncentred": spectral_signatures(share, centred=False),
        "Activation Clustering": activation_clustering(),
        "every smaller cluster": activation_clustering(size=0.5, silhouette=-1),
        "Deep k-NN": deep_knn(2 * told),
    }
    return {name: Victim(defense, case.recipe) for name, defense in defenses.items()}
