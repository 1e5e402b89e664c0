"""Run lessons and store their outputs: python -m tools.run [--lesson 05].

Fills in badges and setup cells, exports the taught code, executes the lessons from a fresh kernel,
and makes the workshop copies. A lesson that fails is left as it was.
"""

import argparse
import hashlib
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from tools import export, workshop
from tools.badges import fill, public_address
from tools.figures import describe
from tools.lessons import code_cells, fold, has_tag, lesson_files, read, ruff, to_text, write

WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d+%\||\d+it \[")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"}


def run_lesson(path: Path, address: str) -> None:
    """Execute one lesson and store it with its outputs."""
    nb = fill(read(path), path.name, address)
    nb = nbformat.reads(ruff(["format"], to_text(nb), path), as_version=4)
    execute(nb, path.parent)
    clean(nb)
    fold(nb)
    describe(nb)
    nb.metadata.course.executed_sha256 = source_hash(nb)
    write(path, to_text(nb))


def execute(nb: NotebookNode, folder: Path, **start: object) -> None:
    """Run all cells in a fresh kernel of this very Python; START goes to the kernel's start."""
    # No kernel folders: a kernel that somebody once registered as python3 must not be taken.
    specs = KernelSpecManager(kernel_dirs=[])
    client = NotebookClient(
        nb,
        km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs),
        timeout=600,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(cleanup_kc=True, **start)


def clean(nb: NotebookNode) -> None:
    """Drop what should not be stored: widgets, progress bars, versions, changing cell ids."""
    for cell in code_cells(nb):
        cell.outputs = [out for out in cell.outputs if not is_progress_bar(out)]
        cell.metadata.pop("execution", None)
    course = nb.metadata.get("course", {})
    nb.metadata = nbformat.from_dict(
        {"course": course, "kernelspec": KERNEL, "language_info": LANGUAGE}
    )
    nb.nbformat, nb.nbformat_minor = 4, 5
    ids = set()
    for cell in nb.cells:
        name = hashlib.sha256(f"{cell.cell_type}\0{cell.source}".encode()).hexdigest()[:8]
        while name in ids:
            name += "-again"
        ids.add(name)
        cell.id = name


def is_progress_bar(output: NotebookNode) -> bool:
    """Whether an output is a widget, or text on stderr that is nothing but a tqdm bar."""
    if WIDGET in output.get("data", {}):
        return True
    if output.output_type != "stream" or output.name != "stderr":
        return False
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[\w", "", output.text))
    return all(BAR.search(line) for line in lines if line.strip())


def source_hash(nb: NotebookNode) -> str:
    """A hash of the code that was executed. The setup cell has its own check."""
    sources = [cell.source for cell in code_cells(nb) if not has_tag(cell, "setup")]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def main() -> None:
    """Run the chosen lessons in order and write everything that is made from them."""
    parser = argparse.ArgumentParser(description="Run lessons and store their outputs.")
    parser.add_argument("--lesson", help="only this one, like 05")
    lessons = lesson_files(lesson=parser.parse_args().lesson)
    os.environ.pop("MPLBACKEND", None)  # it would keep figures out of the outputs
    try:
        workshop.refuse_filled()
        workshop.copies()  # a lesson of the wrong form should fail before the minutes of running
        for path, text in export.modules().items():
            write(path, text)
        for path in lessons:
            start = time.perf_counter()
            print(f"{path.name} ...", end=" ", flush=True)
            run_lesson(path, public_address())
            print(f"{time.perf_counter() - start:.0f} s")
        for path, text in workshop.copies().items():
            write(path, text)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        sys.exit(f"failed, and is left as it was.\n{error}")
    except ValueError as error:
        sys.exit(str(error))
    print("Stored outputs, course_utils modules and workshop copies are up to date.")


if __name__ == "__main__":
    main()
