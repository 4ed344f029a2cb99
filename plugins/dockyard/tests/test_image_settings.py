"""The table ``[dockyard]``: what it accepts, and what it refuses by name."""

from __future__ import annotations

import pytest

from nanocloud.errors import ConfigError
from nanocloud_dockyard.settings import DockyardConfig, RegistrySettings


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"registry": "UPPER/x y"}, "dockyard.registry is 'UPPER/x y'; it must be"),
        ({"registry": "reg.example/x:tag"}, "dockyard.registry is"),
        ({"plain_http": ("http://a",)}, "dockyard.plain_http: 'http://a' is no host"),
        ({"registries": {"a.example": RegistrySettings(mirrors=("https://b",))}}, r"a\.example\.mirrors: 'https://b'"),
        ({"registries": {"a/b": RegistrySettings()}}, "dockyard.registries: 'a/b' is no host"),
        ({"parallel_layers": 0}, "dockyard.parallel_layers is 0; it must be 1 to 16"),
    ],
)
def test_a_bad_setting_is_refused_by_name(settings, says):
    with pytest.raises(ConfigError, match=says):
        DockyardConfig(**settings)


def test_the_section_is_read_from_the_file(tmp_path):
    from nanocloud.config import load
    from nanocloud_dockyard.plugin import nanocloud_image_providers

    file = tmp_path / "config.toml"
    file.write_text(
        f"""
        [node]
        state_dir = "{tmp_path}"
        [dockyard]
        registry = "registry.example/dockyard"
        plain_http = ["127.0.0.1:5000"]
        [dockyard.registries."docker.io"]
        mirrors = ["127.0.0.1:5000/hub"]
        [dockyard.limits]
        max_layer_bytes = 1000
        """
    )
    (provider,) = nanocloud_image_providers(load({"NANOCLOUD_CONFIG": str(file)}))
    assert provider.name == "dockyard"
    assert not (tmp_path / "images").exists()  # building touches nothing
