"""What a command will record is compared with what a file records."""

from __future__ import annotations

from typing import Any

from unsample.methods import get_method
from unsample.preflight.walk import Walk, recorded


def test_a_setting_that_a_method_got_later_has_the_value_that_stood_for_it() -> None:
    asked = Walk(get_method("fixed_point"), steps=4).recorded(guidable=False)
    method = {"name": "fixed_point", "settings": {"num_iters": 10, "tol": None}}
    meta: dict[str, Any] = {"method": method, "grid": {}, "num_inference_steps": 4, "guidance_scale": 1.0}
    meta |= {"sampling_guidance_scale": 1.0}
    assert "start" in asked["settings"]
    assert recorded(meta)["settings"] == asked["settings"]
    method["settings"]["num_iters"] = 9
    assert recorded(meta)["settings"] != asked["settings"]
    assert recorded(meta | {"method": {"name": "gone", "settings": {"a": 1}}})["settings"] == {"a": 1}
