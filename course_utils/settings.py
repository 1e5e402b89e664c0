"""Where a trial runs: a network, how it trains, how much data, and the strengths tuned for these.

A study runs in another setting by changing one word. The cases of `course_utils.cases` and the
victims that face them take a setting; what a lesson says of them holds in the setting it names.
"""

from dataclasses import dataclass, replace

from course_utils.training import Recipe

FEWEST_EPOCHS = 4


@dataclass(frozen=True)
class Setting:
    """A network with its recipe, and the size of everything that is counted.

    network: the name of a model, for `models.build`. recipe: how victims train from scratch.
    share: the part of the full size that images, poisons, epochs and steps have.
    """

    name: str
    network: str
    recipe: Recipe
    share: float = 1.0

    def scaled(self, count: int) -> int:
        """As many images, poisons, epochs or steps as this setting has for `count` at full size."""
        return max(1, round(self.share * count))

    def shortened(self, recipe: Recipe) -> Recipe:
        """A recipe with the epochs that this setting has for it, and as many steps in each.

        At least FEWEST_EPOCHS of them: a target needs surrogates that have learnt something.
        """
        epochs = max(self.scaled(recipe.epochs), min(recipe.epochs, FEWEST_EPOCHS))
        return replace(recipe, epochs=epochs, batch_size=self.scaled(recipe.batch_size))

    @property
    def tiny(self) -> "Setting":
        """The same network in a tenth of the size: seconds for a trial. For tests, not for claims.

        `make verify` compares old and new code in it.
        """
        tiny = replace(self, name=f"tiny {self.name}", share=self.share / 10)
        return replace(tiny, recipe=tiny.shortened(self.recipe))


MLP = Setting("MLP", "mlp", Recipe(epochs=20, batch_size=100, lr=0.05))
"""Two hidden layers of 256 units on 3,000 images: the setting of the lessons."""

CONVNET = Setting("CONVNET", "lenet", Recipe(epochs=20, batch_size=100, lr=0.05))
"""Two strided convolutions and a linear layer: chosen among networks since it can be poisoned."""

TINY = MLP.tiny

RESNET = Setting("RESNET", "resnet9", Recipe(epochs=12, batch_size=512, lr=0.4, half=True))
"""A ResNet-9 on 50,000 colour images: the papers' size, for a GPU. See `paper_scale`."""

RESNET18 = replace(RESNET, name="RESNET18", network="resnet18")
"""The papers' own network."""

RESNET_FIFTH = replace(
    RESNET,
    name="RESNET_FIFTH",
    recipe=replace(RESNET.recipe, epochs=24, batch_size=256, lr=0.2),
    share=0.2,
)
"""10,000 images, for the GPU that Colab lends."""
