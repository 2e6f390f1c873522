"""The paths of the kernels: one result for every instruction set, compiler and architecture."""

import re
import shutil
import subprocess
import sysconfig

import pytest

from evsim.core import kernels
from oracles import kernel_driver

CC = sysconfig.get_config_var("CC").split()[0]
#: Other compilers with flags, and what runs their programs, if this machine does not.
BUILDS = {
    "clang": (["clang"], []),
    "aarch64": (["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"]),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Hashes of the baseline in plain C, without any optimisation."""
    driver = kernel_driver.build(tmp_path_factory.mktemp("plain"), CC, "-O0", "-DEVSIM_PLAIN_C")
    return kernel_driver.hashes(driver)["baseline"]


def test_the_paths_of_this_build_give_the_same_bits(plain, tmp_path):
    found = kernel_driver.hashes(*kernel_driver.beside(tmp_path, kernels.__file__, CC))
    assert set(found) == set(kernels.available())
    for path, lines in found.items():
        assert lines == plain, path


def test_without_an_instruction_that_not_all_processors_of_a_path_have(plain, tmp_path):
    lines = kernel_driver.hashes(kernel_driver.build(tmp_path, CC, "-O0", "-DEVSIM_NO_VNNI"))
    assert all(found == plain for found in lines.values())


@pytest.mark.slow
@pytest.mark.parametrize(("compiler", "runner"), BUILDS.values(), ids=BUILDS)
def test_every_other_compiler_and_architecture_gives_the_same_bits(compiler, runner, plain, tmp_path):
    missing = [program for program in (compiler[0], *runner) if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    found = kernel_driver.hashes(*runner, kernel_driver.build(tmp_path, *compiler))
    assert set(found) == ({"baseline"} if runner else set(kernels.available()))
    for path, lines in found.items():
        assert lines == plain, path


def test_the_driver_runs_every_kernel_and_finds_something(plain):
    names = {name for name, _, _ in kernel_driver.kernels()}
    assert len(names) > 20
    assert {line.split()[0] for line in plain} == names, (
        "add the types of the arguments to kernel_driver.LOCALS"
    )
    assert len(set(plain.values())) > len(plain) * 0.9  # units may be the same for both float types


@pytest.fixture(scope="module")
def instructions():
    """Disassembly of the module with the kernels, by function."""
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed")
    command = ["objdump", "-d", "--no-show-raw-insn", kernels.__file__]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    functions = re.split(r"^[0-9a-f]+ <([^>]+)>:$", text, flags=re.M)
    return dict(zip(functions[1::2], functions[2::2], strict=True))


def test_no_path_has_a_fused_multiply_add(instructions):
    """It rounds once where two operations round twice."""
    fused = re.compile(r"\t(vfn?m(add|sub)\w*|fn?m(add|sub)|fml[as])\b")
    found = {name for name, body in instructions.items() if fused.search(body)}
    assert not found


@pytest.mark.parametrize(("path", "register"), [("avx512", "zmm"), ("avx2", "ymm")])
def test_the_main_loops_use_whole_registers(instructions, path, register):
    bodies = {name: body for name, body in instructions.items() if f"_{path}_f" in name}
    if not bodies:
        pytest.skip(f"this build has no {path}, or no names of functions")
    for kernel in ("add_rows", "evaluate_gates", "egru_evnn_advance", "adam_step"):
        for kind in ("f32", "f64"):
            body = next(body for name, body in bodies.items() if name.startswith(f"{kernel}_{path}_{kind}"))
            assert re.search(rf"\tvmul\w+ .*%{register}", body), (kernel, kind)
    assert not any(re.search(r"\tcall.*<(exp|tanh|sqrt)", body) for body in bodies.values())
