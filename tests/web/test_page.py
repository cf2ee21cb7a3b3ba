"""The page in a real browser: Debian's or any other Chromium, driven by Playwright. Where there is none it is said."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.conftest import BLUE, CAPTION

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
BROWSER = os.environ.get("UNSAMPLE_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no browser here: install chromium, or name one in $UNSAMPLE_BROWSER"
)

LONG = 600_000  # milliseconds for work on a busy machine
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--no-first-run"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def web(browser: Any, served: str) -> Iterator[Any]:
    """A fresh page on which nothing goes wrong and which asks no other host."""
    context = browser.new_context(viewport={"width": 1024, "height": 900}, accept_downloads=True)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda said: wrong.append(said.text) if said.type == "error" and "status of 4" not in said.text else None,
    )
    page.on("request", lambda asked: None if asked.url.startswith((served, "blob:")) else wrong.append(asked.url))
    page.goto(served)
    page.locator("#methods label").first.wait_for(state="attached")
    yield page
    context.close()
    assert wrong == []


def done(page: Any, begins: str) -> None:
    page.locator("#title", has_text=re.compile(f"^{begins}")).wait_for(timeout=LONG)
    playwright.expect(page.locator("#shown")).to_be_visible(timeout=LONG)
    playwright.expect(page.locator("#failed")).to_be_hidden()


def drop(page: Any, content: bytes, name: str, kind: str = "image/png") -> None:
    """Drop a file on the page, as a person does."""
    page.evaluate(
        """([bytes, name, type]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], name, { type }));
          const event = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: data });
          document.getElementById("drop").dispatchEvent(event);
        }""",
        [list(content), name, kind],
    )


def dropped(page: Any, content: bytes, name: str, kind: str = "image/png") -> None:
    """Drop a file that is taken."""
    drop(page, content, name, kind)
    page.locator("#about", has_text=re.compile(f"^{re.escape(Path(name).stem)}")).wait_for(timeout=LONG)


def inverts(page: Any, caption: str, steps: int) -> None:
    """Ask for the inversion and the reconstruction of the picture that was dropped."""
    page.get_by_label("What the picture shows").fill(caption)
    page.locator("[name=steps]").fill(str(steps))
    page.get_by_role("button", name="Invert and reconstruct").click()


def shown(page: Any, side: str) -> int:
    """How wide the picture on a side is; 0 where none is there."""
    image = page.locator(f"#{side}-picture")
    playwright.expect(image).to_have_js_property("complete", True)
    return int(image.evaluate("image => image.naturalWidth"))


def test_a_picture_is_dropped_inverted_edited_and_returned_to(web: Any, drawn: bytes, tmp_path: Path) -> None:
    dropped(web, drawn, "my scene.png")
    inverts(web, CAPTION, 4)
    done(web, "inverted")
    assert shown(web, "right") == 64
    assert "--prompt" in web.locator("#shell").inner_text()
    assert "standard deviation" in web.locator("#facts").inner_text()

    web.get_by_label("What the edit shall show").fill(BLUE)
    web.locator("[name=editor]").select_option("none")
    web.get_by_role("button", name="Invert and edit").click()
    done(web, "edited")
    assert web.locator("#right").input_value() == "edit"
    web.get_by_label("Where the left picture ends").press("ArrowRight")
    assert web.locator("#left-picture").evaluate("image => image.style.clipPath") == "inset(0px 49% 0px 0px)"

    with web.expect_download() as coming:
        web.get_by_role("link", name="edit (PNG)").click()
    coming.value.save_as(tmp_path / "edit.png")
    from unsample.media.pictures import read_metadata

    assert read_metadata(tmp_path / "edit.png")["unsample"]["prompt"] == BLUE
    with web.expect_download() as coming:
        web.get_by_role("link", name="inversion", exact=True).click()
    assert coming.value.suggested_filename == "my scene.safetensors"
    coming.value.save_as(tmp_path / "kept.safetensors")
    with web.expect_download() as coming:
        web.get_by_role("link", name="JSON").click()
    assert json.loads(Path(coming.value.path()).read_text())["asked"]["target_prompt"] == BLUE

    web.get_by_role("navigation", name="History").get_by_role("button", name=re.compile("^inverted")).first.click()
    done(web, "inverted")
    assert web.get_by_label("What the edit shall show").input_value() == ""

    dropped(web, (tmp_path / "kept.safetensors").read_bytes(), "kept.safetensors", "application/octet-stream")
    assert web.locator("[name=steps]").input_value() == "4"
    web.get_by_label("What the edit shall show").fill(BLUE)
    web.locator("[name=editor]").select_option("none")
    web.get_by_role("button", name="Invert and edit").click()
    done(web, "edited")
    assert web.locator("#shell").inner_text().startswith("unsample reconstruct kept.safetensors")


def test_a_file_that_is_refused_leaves_the_picture_as_it_was(web: Any, drawn: bytes) -> None:
    dropped(web, drawn, "my scene.png")
    was = web.locator("#about").inner_text()
    drop(web, b"some words", "words.txt", "text/plain")
    playwright.expect(web.locator("#problem")).to_contain_text("'words.txt'")
    playwright.expect(web.locator("#about")).to_have_text(was)


def test_a_png_of_ours_brings_its_settings_back(web: Any, tmp_path: Path) -> None:
    import torch
    from PIL import Image

    from unsample.media.pictures import write_png

    about = {"verb": "edit", "prompt": BLUE, "source_prompt": CAPTION, "model": "scenes-sd", "method": "fixed_point"}
    about |= {"method_settings": {"num_iters": 3}, "num_inference_steps": 7, "guidance_scale": 2.5, "seed": 5}
    write_png(Image.fromarray(torch.zeros(64, 64, 3).byte().numpy()), tmp_path / "ours.png", about)
    dropped(web, (tmp_path / "ours.png").read_bytes(), "ours.png")
    assert web.locator("[name=steps]").input_value() == "7"
    assert web.locator("[name=method]").input_value() == "fixed_point"
    assert web.locator("#method-settings [data-setting=num_iters]").input_value() == "3"
    assert web.locator("[name=edit_guidance_scale]").input_value() == "2.5"
    assert web.get_by_label("What the picture shows").input_value() == BLUE
    assert "made by unsample: edit" in web.locator("#about").inner_text()


def test_a_mask_is_painted_by_pointer_and_by_keys_and_only_there_something_changes(web: Any, drawn: bytes) -> None:
    dropped(web, drawn, "scene.png")
    web.get_by_label("What the picture shows").fill(CAPTION)
    web.get_by_label("What the edit shall show").fill(BLUE)
    web.locator("[name=editor]").select_option("none")
    web.locator("[name=steps]").fill("4")
    web.locator("#mask-part summary").click()
    web.get_by_label("drawn by brush").check()
    web.get_by_role("button", name="Invert and edit").click()
    playwright.expect(web.locator("#problem")).to_contain_text("nothing is painted yet")

    web.locator("#paint").scroll_into_view_if_needed()
    box = web.locator("#paint").bounding_box()
    web.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2)
    web.mouse.down()
    web.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.2, steps=5)
    web.mouse.up()
    web.locator("#paint").focus()
    for key in ("ArrowDown", "ArrowDown", "Space"):
        web.keyboard.press(key)
    web.get_by_role("button", name="Invert and edit").click()
    done(web, "edited")
    web.locator("#right").select_option("mask")
    assert shown(web, "right") == 64
    assert "--mask scene-drawn-mask.png" in web.locator("#shell").inner_text()
    playwright.expect(web.locator("#said")).to_be_visible()

    web.reload()  # and the mask of an earlier job comes back with it
    web.get_by_role("navigation", name="History").get_by_role("button", name=re.compile("^edited")).first.click()
    done(web, "edited")
    web.wait_for_function(PAINTED)


def test_what_is_typed_while_a_job_runs_stays(web: Any, drawn: bytes) -> None:
    dropped(web, drawn, "scene.png")
    inverts(web, CAPTION, 40)
    web.locator("#progress").wait_for(timeout=LONG)
    web.get_by_label("What the edit shall show").fill(BLUE)
    web.locator("[name=steps]").fill("33")
    done(web, "inverted")
    assert web.get_by_label("What the edit shall show").input_value() == BLUE
    assert web.locator("[name=steps]").input_value() == "33"
    assert web.locator("[name=editor]").input_value() == "auto"


def test_of_two_jobs_opened_one_after_the_other_the_last_is_shown(web: Any, drawn: bytes) -> None:
    dropped(web, drawn, "scene.png")
    there = web.locator("#jobs [data-job]").count()  # of other pages of this session
    for k, caption in enumerate((CAPTION, BLUE), there + 1):
        inverts(web, caption, 2)
        playwright.expect(web.locator("#jobs [data-job]")).to_have_count(k, timeout=LONG)
        playwright.expect(web.locator("#progress")).to_be_hidden(timeout=LONG)
        done(web, "inverted")
    jobs = web.locator("#jobs [data-job]").evaluate_all("all => all.map((each) => each.dataset.job)")[:2]

    def late(route: Any) -> None:
        web.wait_for_timeout(500)
        route.continue_()

    web.route(f"**/api/jobs/{jobs[1]}", late)
    web.evaluate("jobs => { for (const id of jobs) document.querySelector(`[data-job='${id}']`).click(); }", jobs[::-1])
    web.wait_for_timeout(1000)
    playwright.expect(web.locator("#shown")).to_be_visible()
    assert web.get_by_label("What the picture shows").input_value() == BLUE


def test_methods_are_compared_side_by_side(web: Any, drawn: bytes) -> None:
    dropped(web, drawn, "scene.png")
    web.get_by_label("What the picture shows").fill(CAPTION)
    web.get_by_label("What the edit shall show").fill(BLUE)
    web.locator("[name=editor]").select_option("none")
    web.locator("[name=steps]").fill("3")
    web.locator("#comparing summary").click()
    while web.locator("#methods input:checked").count():
        web.locator("#methods input:checked").first.uncheck()
    web.get_by_role("button", name="Compare", exact=True).click()
    playwright.expect(web.locator("#problem")).to_contain_text("at least one")
    for name in ("ddim", "edict"):
        web.locator(f"#methods input[value={name}]").check()
    web.get_by_role("button", name="Compare", exact=True).click()
    done(web, "compared: ddim, edict")
    assert web.locator("#panels .strip").count() == 3
    web.locator("#panels [data-name=edict-edit]").click()
    assert web.locator("#right").input_value() == "edict-edit"
    assert web.locator("#facts tbody tr").count() == 2
    assert shown(web, "right") == 64


def test_work_goes_on_while_the_page_is_loaded_anew_and_is_cancelled(web: Any, drawn: bytes) -> None:
    dropped(web, drawn, "scene.png")
    inverts(web, CAPTION, 900)
    web.locator("#preview").wait_for(timeout=LONG)
    web.reload()
    playwright.expect(web.locator("#progress")).to_be_visible(timeout=LONG)
    playwright.expect(web.locator("#stage-text")).to_contain_text("of 900", timeout=LONG)
    web.get_by_role("button", name="Cancel", exact=True).first.click()
    playwright.expect(web.locator("#progress")).to_be_hidden(timeout=5000)
    playwright.expect(web.locator("#failed")).to_contain_text("cancelled")


def test_the_example_needs_one_press_and_a_refusal_is_told_in_the_page_s_own_words(web: Any) -> None:
    web.locator("[name=steps]").fill("3")
    web.get_by_role("button", name="Show me an example").click()
    done(web, "edited")
    web.get_by_label("What the edit shall show").fill("a photograph of a cat")
    web.get_by_role("button", name="Invert and edit").click()
    problem = web.locator("#problem")
    playwright.expect(problem).to_contain_text("'photograph', 'cat'")
    playwright.expect(problem).to_contain_text("“Go on with what the model does not know” goes on all the same")


def test_a_pixel_model_takes_no_words(web: Any, drawn: bytes) -> None:
    web.locator("[name=model]").select_option("scenes-ddpm")
    assert web.get_by_label("What the picture shows").is_disabled()
    dropped(web, drawn, "scene.png")
    web.locator("[name=steps]").fill("3")
    web.get_by_role("button", name="Invert and reconstruct").click()
    done(web, "inverted")
    assert shown(web, "right") == 32


@pytest.mark.parametrize("width", [390, 1024, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_over_the_side_and_text_can_be_read(web: Any, width: int, scheme: str) -> None:
    web.set_viewport_size({"width": width, "height": 900})
    web.emulate_media(color_scheme=scheme)
    for part in ("#mask-part", "#more", "#comparing"):
        web.locator(f"{part} > summary").click()
    assert web.evaluate("document.documentElement.scrollWidth") <= width
    assert web.evaluate(CONTRAST) == []


PAINTED = """() => {
  const canvas = document.getElementById("paint");
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((x) => x > 0);
}"""
CONTRAST = """() => {
  const luminance = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const element of document.querySelectorAll("label, p, button, summary, legend, h1, h2, li, .button, input")) {
    if (!element.offsetParent || element.disabled || element.classList.contains("quiet")) continue;
    const [a, b] = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${element.tagName} ${element.textContent.slice(0, 30)}`);
  }
  return poor;
}"""


def test_every_field_has_a_name_and_can_be_reached_by_keys(web: Any) -> None:
    for part in ("#mask-part", "#more", "#comparing"):
        web.locator(f"{part} > summary").click()
    nameless = web.evaluate("""() => {
      const said = (e) => e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim() || "alt" in e;
      const found = [...document.querySelectorAll("input, select, textarea, button, img, progress")];
      return found.filter((e) => e.offsetParent && !said(e)).map((e) => e.outerHTML);
    }""")
    assert nameless == []
    reached = set()
    for _ in range(120):
        web.keyboard.press("Tab")
        reached.add(web.evaluate("document.activeElement.id || document.activeElement.name || ''"))
    assert {
        "file",
        "caption",
        "draw",
        "prompt",
        "target_prompt",
        "model",
        "method",
        "run",
        "compare",
        "theme",
    } <= reached


def test_reports_are_listed_and_opened_in_a_sandbox(web: Any) -> None:
    with web.context.expect_page() as opening:
        web.get_by_role("link", name="A report of one run").click()
    report = opening.value
    report.wait_for_load_state()
    assert "Its figures" in report.locator("body").inner_text()
    assert report.evaluate("self.origin") == "null"


def test_the_theme_can_be_chosen(web: Any) -> None:
    button = web.locator("#theme")
    for said in ("light", "dark", "as the system"):
        button.click()
        playwright.expect(button).to_have_text(f"Theme: {said}")
