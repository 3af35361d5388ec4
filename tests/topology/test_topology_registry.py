"""Names of topologies, and that the package stands alone."""

import os
import subprocess
import sys

import pytest

from bluefog_pg import topology
from bluefog_pg.topology import registry


@pytest.fixture
def clean_registry(monkeypatch):
    members = dict(registry._constructors._members)
    monkeypatch.setattr(registry._constructors, "_members", members)


def test_all_constructors_are_registered_and_exported():
    static = """
        de_bruijn equi_static erdos_renyi exponential fully_connected hypercube mesh2d
        random_regular ring star symmetric_exponential torus2d
    """
    assert set(static.split()) <= set(topology.names())
    assert topology.get("one_peer_exponential") is topology.one_peer_exponential
    assert topology.names() == sorted(topology.names())
    for name in topology.names():
        assert topology.get(name) is getattr(topology, name)
        assert name in topology.__all__
    assert all(hasattr(topology, name) for name in topology.__all__)


def test_a_new_topology_is_one_function(clean_registry):
    @topology.register
    def pairs(n):
        return topology.mesh2d(n)

    assert topology.get("pairs") is pairs
    assert "pairs" in topology.names()


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown topology 'rings'; .*mesh2d, .*ring, star"):
        topology.get("rings")


def test_a_name_belongs_to_one_function(clean_registry):
    def ring(n):
        raise AssertionError("never called")

    with pytest.raises(
        ValueError, match=r"'ring' is taken by bluefog_pg\.topology\.static\.classic\.ring"
    ):
        topology.register(ring)
    assert topology.get("ring") is topology.ring


def test_registering_again_replaces(clean_registry):
    def make():
        def again(n):
            return topology.ring(n)

        return again

    topology.register(make())
    second = topology.register(make())
    assert topology.get("again") is second


def test_import_needs_no_torch():
    # An empty package stands in for bluefog_pg/__init__.py, which imports torch to register.
    code = (
        "import sys, types\n"
        "package = sys.modules['bluefog_pg'] = types.ModuleType('bluefog_pg')\n"
        "package.__path__ = [sys.argv[1]]\n"
        "import bluefog_pg.topology as topology\n"
        "topology.fingerprint(topology.get('one_peer_exponential')(6))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    folder = os.path.dirname(os.path.dirname(topology.__file__))
    subprocess.run([sys.executable, "-c", code, folder], check=True, timeout=60)
