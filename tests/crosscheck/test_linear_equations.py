"""Linear equations brought into one form, against forms found by hand.  Needs SymPy, which Brian2 brings."""

import pytest

from evsim.brian.linear_equations import linear_equations
from evsim.errors import NetworkError

NAMES = "v g h El tau tau_s C gl I a R"


@pytest.fixture
def sympy(brian2):
    return pytest.importorskip("sympy")


def read(sympy, **sides):
    names = {name: sympy.Symbol(name, real=True) for name in NAMES.split()}
    right = {name: sympy.sympify(side, locals=names) for name, side in sides.items()}
    texts = {name: f"d{name}/dt = {side}" for name, side in sides.items()}
    found = linear_equations(right, texts, "group 'G'")
    return {
        name: (str(one.tau), str(one.rest), {key: str(gain) for key, gain in one.gains.items()})
        for name, one in found.items()
    }


#: dv/dt, and by hand: tau, rest, gain of g.
SPELLINGS = [
    ("(El - v)/tau", ("tau", "El", {})),
    ("-(v - El)/tau + I/C", ("tau", "El + I*tau/C", {})),
    ("(g - (v - El))/tau", ("tau", "El", {"g": "1"})),
    ("El/tau - v/tau - 3*g/tau", ("tau", "El", {"g": "-3"})),
    ("(gl*(El - v) + g)/C", ("C/gl", "El", {"g": "1/gl"})),
    ("-a*v", ("1/a", "0", {})),
    ("-v/tau - v/tau_s", ("tau*tau_s/(tau + tau_s)", "0", {})),
    ("v/tau - 2*v/tau", ("tau", "0", {})),
    ("(v**2 - v*(v + 1) + El)/tau", ("tau", "El", {})),
    ("(R*(g + I) - v)*(1/tau)", ("tau", "I*R", {"g": "R"})),
    ("-v/(tau*exp(a))", ("tau*exp(a)", "0", {})),
    ("(g - g - v)/tau", ("tau", "0", {})),
]


@pytest.mark.peer
@pytest.mark.parametrize(("side", "expected"), SPELLINGS)
def test_spellings(sympy, side, expected):
    found = read(sympy, v=side, g="(I - g)/tau_s")
    expressions = [sympy.sympify(one) for one in (found["v"][0], found["v"][1])]
    for mine, by_hand in zip(expressions, expected[:2], strict=True):
        assert sympy.simplify(mine - sympy.sympify(by_hand)) == 0
    assert found["v"][2] == expected[2]
    assert found["g"] == ("tau_s", "I", {})


@pytest.mark.peer
def test_each_may_read_others(sympy):
    found = read(sympy, v="(g + 2*h - v)/tau", g="(h - g)/tau_s", h="-h/tau_s")
    assert [found[name][2] for name in "vgh"] == [{"g": "1", "h": "2"}, {"h": "1"}, {}]


@pytest.mark.peer
@pytest.mark.parametrize(
    ("side", "words"),
    [
        ("-v**2/tau", "not linear in v"),
        ("-v*g/tau", "not linear in [vg]"),
        ("(exp(g) - v)/tau", "not linear in g"),
        ("-Abs(v)/tau", "not linear in v"),
        ("-floor(v)/tau - v/tau", "not linear"),
        ("-v/(tau + g)", "not linear"),
        ("1/v", "not linear in v"),
        ("El/tau", "v does not decay by itself"),
        ("(g - 0*v)/tau", "v does not decay by itself"),
    ],
)
def test_what_is_not_linear(sympy, side, words):
    with pytest.raises(NetworkError, match=r"group 'G'.*dv/dt = .*" + words):
        read(sympy, v=side, g="-g/tau_s")
