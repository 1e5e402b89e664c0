"""Build the reading edition in site/ from the stored lessons: python -m tools.site.

The old edition stays until the new one is complete and without a warning.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from sphinx.cmd.build import build_main

from tools.lessons import ROOT

SITE = ROOT / "site"


def main() -> None:
    with TemporaryDirectory() as folder:
        pages = Path(folder, "site")
        settings = ["-c", str(Path(__file__).parent), "-d", f"{folder}/doctrees"]
        if build_main(["-q", "-W", "--keep-going", *settings, str(ROOT), str(pages)]):
            sys.exit("The reading edition was not built: mend the warnings above.")
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.move(pages, SITE)
    print(f"Open {SITE / 'index.html'} in a browser.")


if __name__ == "__main__":
    main()
