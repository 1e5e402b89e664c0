"""Copy the code that lessons teach to course_utils: python -m tools.export [--check].

A code cell whose first line is `#| export attacks.NAME` (or defenses, cases, studies) is copied to
course_utils/attacks/NAME.py. A lesson may feed several modules; a module has one lesson. A module
gets the imports of its lesson that it uses, wherever they stand there, and imports what it takes
from the lesson's other modules.
"""

import ast
import re
import symtable
import sys
from pathlib import Path

from tools.lessons import ROOT, code_cells, differences, lesson_files, read, ruff, title, write

PACKAGES = ("attacks", "defenses", "cases", "studies")
LINE = re.compile(rf"#\| export (({'|'.join(PACKAGES)})\.[a-z][a-z0-9_]*)")
DOCSTRING = '''"""Built in lesson {number}, {title}.

Generated from notebooks/{name}: edit it there, then run make notebooks.
"""
'''


def modules(root: Path = ROOT) -> dict[Path, str]:
    """The text of every exported module by its path. Raises ValueError with all that is wrong."""
    texts, lesson_of, errors = {}, {}, []
    for notebook in lesson_files(root):
        try:
            made = lesson_modules(notebook)
        except ValueError as error:
            errors.append(f"{notebook.name}: {error}")
            continue
        for target, text in made.items():
            first = lesson_of.setdefault(target, notebook.name)
            if first != notebook.name:
                errors.append(
                    f"{target} is exported by {first} and by {notebook.name}: rename one of the two"
                )
            path = root / "course_utils" / f"{target.replace('.', '/')}.py"
            sorted_text = ruff(["check", "--select=I", "--fix", "--exit-zero"], text, path)
            texts[path] = ruff(["format"], sorted_text, path)
    if errors:
        raise ValueError("Nothing was exported.\n" + "\n".join(errors))
    return texts


def lesson_modules(notebook: Path) -> dict[str, str]:
    """The modules of one lesson by name ("attacks.NAME"), not yet formatted."""
    nb = read(notebook)
    bodies, lines = {}, {}
    for number, cell in enumerate(code_cells(nb), start=1):
        try:
            add_imports(lines, ast.parse(cell.source))
        except SyntaxError as error:
            raise ValueError(f"code cell {number} is not plain Python: {error}") from error
        if "#| export" in cell.source:
            target, source = exported(cell.source, number)
            bodies[target] = f"{bodies[target]}\n\n\n{source}" if target in bodies else source
    if not bodies:
        return {}
    head = DOCSTRING.format(number=notebook.name[:2], title=title(nb), name=notebook.name)
    return {
        target: f"{head}\n{imports(target, bodies, lines)}{body}\n"
        for target, body in bodies.items()
    }


def exported(source: str, number: int) -> tuple[str, str]:
    """The module ("attacks.NAME") that a cell feeds, and what it gives."""
    first, _, rest = source.partition("\n")
    line = LINE.fullmatch(first.strip())
    if not line or "#| export" in rest:
        raise ValueError(
            f"code cell {number}: the export line must be the first line and read like "
            f"'#| export attacks.gradient_matching' (or {' or '.join(PACKAGES[1:])}); "
            f"the first line is {first!r}"
        )
    return line[1], rest.strip()


def add_imports(lines: dict[str, set[str]], tree: ast.Module) -> None:
    """Collect the imports of a cell, one name a line, by the name that they bind."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                one = ast.Import([alias])
                if isinstance(node, ast.ImportFrom):
                    one = ast.ImportFrom(node.module, [alias], node.level)
                name = alias.asname or alias.name.partition(".")[0]
                lines.setdefault(name, set()).add(ast.unparse(one))


def imports(target: str, bodies: dict[str, str], lines: dict[str, set[str]]) -> str:
    """The import lines for the names that a module uses and does not bind itself."""
    siblings = {
        symbol.get_name(): f"from course_utils.{other} import {symbol.get_name()}"
        for other in bodies.keys() - {target}
        for symbol in table(bodies[other]).get_symbols()
        if symbol.is_assigned() and not symbol.is_imported()
    }
    top = table(bodies[target])
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    found = set()
    for name in used(top) - bound:
        found |= {siblings[name]} if name in siblings else lines.get(name, set())
    return "".join(f"{line}\n" for line in sorted(found))


def table(source: str) -> symtable.SymbolTable:
    """The names of a piece of code."""
    return symtable.symtable(source, "<cell>", "exec")


def used(scope: symtable.SymbolTable) -> set[str]:
    """The names that a piece of code looks up in its module."""
    top = scope.get_type() == "module"
    names = {
        s.get_name() for s in scope.get_symbols() if s.is_referenced() and (top or s.is_global())
    }
    return names.union(*(used(child) for child in scope.get_children()))


def drift(root: Path = ROOT) -> list[str]:
    """How the committed modules differ from what the notebooks give."""
    folders = [root / "course_utils" / package for package in PACKAGES]
    found = [path for folder in folders for path in folder.glob("*.py")]
    return differences(modules(root), [path for path in found if path.name != "__init__.py"])


def main() -> None:
    """Write the modules, or with --check only say what differs."""
    try:
        if "--check" in sys.argv[1:]:
            sys.exit("\n".join(drift()) or None)
        for path, text in modules().items():
            write(path, text)
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
