"""A C program that runs every kernel of every path on numbers of its own and prints hashes of what came out.

It needs neither Python nor the C library's functions of mathematics, so it runs where evsim is not installed:
under an emulator of another processor, or made by another compiler.  Equal lines mean equal bits.  The calls
are written from ``kernel_list.h`` by the types of the arguments.

    python tests/oracles/kernel_driver.py > driver.c
    cc $FLAGS -c cython_core/kernel_table.c
    cc -O1 -ffp-contract=off -Icython_core driver.c kernel_table.o -o driver -lm && ./driver
"""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "cython_core"

#: Locals for one argument, by its type.  Numbers that a kernel writes to start positive: some are squares.
LOCALS = {
    "int64_t": "const int64_t {a} = n;",
    "int32_t": "const int32_t {a} = kind;",
    "double": "const double {a} = uniform(0.1, 0.9);",
    "const FixedFormat *": "const FixedFormat *{a} = &fixed;",
    "const int32_t *": "const int32_t *{a} = indices(room);",
    "int32_t *": "int32_t *{a} = indices(room);",
    "const int64_t *": "const int64_t *{a} = equal(n, (\"{a}\"[1] - '1') * n);",  # where lists begin; end
    "int64_t *": "int64_t *{a} = equal(n, 0);",
    "const uint32_t *": "const uint32_t *{a} = words(room + 64);",  # more than there are columns
    "const SparseRows *": "const SparseRows *{a} = sparse(n);",
    "const REAL *": "const REAL *{a} = NAME(numbers)(room, -2, 2);",
    "REAL *": "REAL *{a} = NAME(numbers)(room, 0.05, 1.95);",
}

START = """\
#include "kernel_table.h"

#include <stdio.h>
#include <stdlib.h>

static const int64_t sizes[] = {1, 5, 16, 37, 67};
static uint64_t seed, hash;

static double uniform(double low, double high)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return low + (high - low) * ((double)(seed >> 40) / 16777216);
}

static void mix(const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211ULL;
}

static int32_t *indices(int64_t room)
{
    int32_t *made = malloc(room * sizeof *made);
    for (int64_t i = 0; i < room; i++)
        made[i] = (int32_t)i;
    return made;
}

static int64_t *equal(int64_t room, int64_t value)
{
    int64_t *made = malloc(room * sizeof *made);
    for (int64_t i = 0; i < room; i++)
        made[i] = value;
    return made;
}

/* Pairs of bfloat16 from 0.5 to 2, or fours of int8. */
static uint32_t *words(int64_t room)
{
    uint32_t *made = malloc(room * sizeof *made);
    for (int64_t i = 0; i < room; i++)
        made[i] = 0x3f003f00u | (uint32_t)uniform(0, 0x10000) * 0x8001u;
    return made;
}

/* Every second column of n from column u on, row n is row 0; columns of either width. */
static SparseRows *sparse(int64_t n)
{
    const int64_t items = (n + 1) / 2;
    SparseRows *made = malloc(sizeof *made + 2 * (n + 1) * sizeof(int64_t) + n * items * 6); /* freed as one */
    int64_t *ptr = (int64_t *)(made + 1);
    int32_t *wide = (int32_t *)(ptr + 2 * (n + 1));
    uint16_t *column = (uint16_t *)(wide + n * items);
    for (int64_t u = 0; u <= n; u++) {
        ptr[2 * u] = u % n * items;
        ptr[2 * u + 1] = ptr[2 * u] + items;
        for (int64_t j = 0; u < n && j < items; j++)
            wide[u * items + j] = column[u * items + j] = (uint16_t)((u + 2 * j) % n);
    }
    *made = (SparseRows){ptr, n & 4 ? (void *)wide : (void *)column, n & 4 ? 1 : 0, 2, 1};
    return made;
}

static void mix_indices(const int32_t *x, int64_t room) { mix(x, room * sizeof *x); }

static double table[2049];
static FixedFormat fixed = {256, 1.0 / 256, -2048, 2047, 1024, 1024, table + 1024, table + 1024};
"""

FOR_ONE_TYPE = """
static REAL *NAME(numbers)(int64_t room, double low, double high)
{
    REAL *made = malloc(room * sizeof *made);
    for (int64_t i = 0; i < room; i++)
        made[i] = (REAL)uniform(low, high);
    return made;
}

static void NAME(mix)(const REAL *x, int64_t room)
{
    for (int64_t i = 0; i < room; i++) /* processors differ in the bits of a NaN */
        x[i] == x[i] ? mix(x + i, sizeof *x) : mix("nan", 3);
}
"""

MAIN = """
int main(void)
{
    for (int i = 0; i < 2049; i++)
        table[i] = uniform(-1, 1);
    const KernelTable *path;
    for (int place = 0; (path = evsim_kernel_path(place)); place++) {
        run_f32(path->name, &path->f32);
        run_f64(path->name, &path->f64);
    }
    return 0;
}
"""

CALL = """\
    hash = 14695981039346656037ULL;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int32_t kind = 0; kind < {kinds}; kind++) {{
            const int64_t n = sizes[s], room = {room};
            seed = {number} + s;
            {locals}
            {result}kernels->{name}({arguments});
            {mixed}
            {freed}
        }}
    printf("%s {name} {type} %016llx\\n", name, (unsigned long long)hash);
"""


def kernels() -> list[tuple[str, str, list[str]]]:
    """Name, type of the result and types of the arguments of all kernels."""
    text = re.sub(r"/\*.*?\*/", "", (CORE / "kernel_list.h").read_text(), flags=re.S)
    found = re.findall(r"KERNEL\((\w+),\s*(\w+),\s*\(([^()]*)\)\)", text)
    assert len(found) == text.count("KERNEL(")
    return [(name, result, [" ".join(a.split()) for a in args.split(",")]) for name, result, args in found]


def call(number: int, name: str, result: str, types: list[str], kind: str) -> str:
    """C that runs one kernel on all sizes, and prints the hash."""
    names = [f"a{i}" for i in range(len(types))]
    written = [(a, t) for a, t in zip(names, types, strict=True) if t in ("REAL *", "int32_t *")]
    mixed = [f"{'NAME(mix)' if t == 'REAL *' else 'mix_indices'}({a}, room);" for a, t in written]
    pointers = [a for a, t in zip(names, types, strict=True) if t.endswith("*") and "Fixed" not in t]
    return CALL.format(
        number=1000 * number,
        room="n * n" if "const int32_t *" in types else "6 * n",  # rows; or the largest tape
        name=name,
        type=kind,
        kinds=3 if "int32_t" in types else 1,
        locals=" ".join(LOCALS[t].format(a=a) for a, t in zip(names, types, strict=True)),
        result="" if result == "void" else f"const {result} found = ",
        arguments=", ".join(names),
        mixed=" ".join([*mixed, *(["mix(&found, sizeof found);"] if result != "void" else [])]),
        freed=" ".join(f"free((void *){a});" for a in pointers),
    )


def source() -> str:
    """The program."""
    parts = [START]
    for real, kind, struct in (("float", "f32", "KernelsFloat"), ("double", "f64", "KernelsDouble")):
        parts += [f"#define REAL {real}\n#define NAME(name) name##_{kind}\n", FOR_ONE_TYPE]
        parts += [f"static void run_{kind}(const char *name, const {struct} *kernels)\n{{\n"]
        parts += [call(number, *kernel, kind) for number, kernel in enumerate(kernels())]
        parts += ["}\n#undef REAL\n#undef NAME\n"]
    return "\n".join([*parts, MAIN])


def flags() -> list[str]:
    """Compiler flags of the build."""
    return runpy.run_path(str(ROOT / "setup.py"))["FLAGS"]


def build(folder: Path, *command: str) -> Path:
    """The program, the kernels of which are made by a compiler with these flags after those of the build."""
    (folder / "driver.c").write_text(source())
    table = [*command[:1], *flags(), *command[1:], "-c", str(CORE / "kernel_table.c")]
    rest = [*command[:1], "-O1", "-ffp-contract=off", *command[1:], f"-I{CORE}", "driver.c", "kernel_table.o"]
    for words in (table, [*rest, "-o", "driver", "-lm"]):
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "driver"


def hashes(*command: str | Path) -> dict[str, dict[str, str]]:
    """What the program prints: by path, hash by kernel and float type."""
    found: dict[str, dict[str, str]] = {}
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for path, kernel, kind, value in map(str.split, done.stdout.splitlines()):
        found.setdefault(path, {})[f"{kernel} {kind}"] = value
    return found


if __name__ == "__main__":
    print(source())
