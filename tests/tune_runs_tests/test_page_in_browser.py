"""The actions of a reader on the report page, in a real browser without a window."""

import itertools
import re
import shutil
import threading

import pytest

from cluster.reports.page import live_server
from cluster.reports.page.live_server import ReportServer
from cluster.reports.page.page import page as page_of
from cluster.reports.page.pictures import draw
from tests.cluster_tests.experiment_files import write_examples, write_experiment, write_records, write_trial
from tests.cluster_tests.reports.test_sweep_over_models import folder_of

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]

OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
HOSTILE = "</script><script>document.title='broken in'</script><img src=x onerror=\"document.title='broken in'\"><!--"
LR, DECAY = "lr", "weight_decay"
ROWS = "table.combinations tbody tr[data-key]"


def key(place):
    return f"{place:016x}"


@pytest.fixture(scope="module")
def playwright():
    with sync_api.sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright):
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*OPTIONS, "--enable-unsafe-swiftshader"])
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def flat_browser(playwright):
    """A browser without WebGL."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*OPTIONS, "--disable-3d-apis"])
    yield browser
    browser.close()


def write_sweep(path):
    folder = write_experiment(
        path,
        [
            ({"optimizer_args.lr": 1e-3, "optimizer_args.weight_decay": 0.0}, [9.0, 9.1, 9.2]),
            ({"optimizer_args.lr": 1e-2, "optimizer_args.weight_decay": 0.0}, [10.0, 10.1, 10.2]),
            ({"optimizer_args.lr": 1e-2, "optimizer_args.weight_decay": 0.1}, [12.0, 12.1, "ValueError: " + HOSTILE]),
            ({"optimizer_args.lr": 1e-1, "optimizer_args.weight_decay": 0.0}, [None, None, None]),
        ],
        name=HOSTILE,
    )
    for place, best in enumerate([9.0, 10.0]):
        for repetition in range(3):
            write_records(folder, f"{key(place)}/{repetition}", [14.0, 11.0, best + repetition / 10])
    write_examples(folder, f"{key(0)}/0")
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page of a sweep, as a file."""
    path = tmp_path_factory.mktemp("browser")
    (path / "report.html").write_text(page_of(write_sweep(path / "sweep")), encoding="utf-8")
    return path / "report.html"


def until(page, condition):
    """Waits for a condition; playwright's own method would need a page that allows `eval`."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"waited in vain for {condition}")


class Opened:
    """An open page in a browser, with all its requests and errors."""

    def __init__(self, browser, address, **settings):
        self.context = browser.new_context(viewport={"width": 1200, "height": 900}, **settings)
        self.page = self.context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def _note(self, kind, text):
        # A slow software renderer is not an error of the page.
        if kind in ("error", "warning") and "GL Driver Message" not in text:
            self.complaints.append(text)

    def choice(self, option):
        """Returns the control that filters by an option."""
        return self.page.get_by_label(re.compile(f"^{option} "))

    def column(self, title):
        """The texts of a column in the shown rows."""
        titles = [
            text.strip()
            for text in self.page.locator("table.combinations thead tr").nth(1).locator("th").all_inner_texts()
        ]
        rows = [row for row in self.page.locator(ROWS).all() if row.is_visible()]
        return [row.locator("th, td").nth(titles.index(title)).inner_text().strip() for row in rows]


@pytest.fixture
def opened(browser, file):
    opened = Opened(browser, file.as_uri())
    yield opened
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [file.as_uri()]
    assert opened.page.title().startswith("</script>")
    opened.context.close()


@pytest.fixture(scope="module")
def sweep_over_models(browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    (path / "report.html").write_text(page_of(folder_of(path)), encoding="utf-8")
    opened = Opened(browser, (path / "report.html").as_uri())
    yield opened.page
    opened.context.close()


class TestASweepOverModels:
    def test_is_not_wider_than_a_phone(self, sweep_over_models):
        sweep_over_models.set_viewport_size({"width": 390, "height": 800})
        assert sweep_over_models.evaluate("document.documentElement.scrollWidth") == 390

    def test_has_whole_tables_on_a_screen(self, sweep_over_models):
        sweep_over_models.set_viewport_size({"width": 1300, "height": 900})
        cut = "[...document.querySelectorAll('.scroll')].filter(table => table.scrollWidth > table.clientWidth).length"
        assert sweep_over_models.evaluate(cut) == 0


class TestTheTable:
    def test_is_sorted_by_a_click_on_a_head_and_back_by_another(self, opened):
        head = opened.page.locator("thead button", has_text="weight_decay")
        head.click()
        assert opened.column(DECAY) == ["0", "0", "0", "0.1"]
        assert head.locator("..").get_attribute("aria-sort") == "ascending"
        head.click()
        assert opened.column(DECAY) == ["0.1", "0", "0", "0"]
        assert head.locator("..").get_attribute("aria-sort") == "descending"
        assert opened.page.locator("[aria-sort]:not([aria-sort=none])").count() == 1
        assert opened.page.locator("#announcement").inner_text() == f"Sorted by {DECAY}, descending"

    def test_is_sorted_by_numbers_with_what_is_missing_last(self, opened):
        head = opened.page.locator("thead button", has_text="after").first
        head.click()
        assert opened.column("#") == ["1", "2", "3", "4"]
        head.click()
        assert opened.column("#") == ["3", "2", "1", "4"]
        opened.page.locator("thead button", has_text="change").first.click()
        assert opened.column("#") == ["1", "2", "3", "4"]

    def test_is_filtered_by_words(self, opened):
        opened.page.get_by_label("Search").fill("failed 0.1")
        assert opened.column("#") == ["3"]
        assert opened.page.locator("#shown").inner_text() == "1 of 4 shown"
        opened.page.get_by_label("Search").fill("pending")
        assert opened.column("#") == ["4"]
        opened.page.get_by_label("Search").fill("nothing like it")
        assert opened.column("#") == []
        opened.page.get_by_label("Search").fill("")
        assert len(opened.column("#")) == 4

    @pytest.mark.parametrize("number", ["3", "9.10", "10.1", "11.10 ± 0.10", "15.00", "−39.3", "2,"])
    def test_is_not_filtered_by_places_and_measured_numbers(self, opened, number):
        assert number in opened.page.locator("table.combinations tbody").inner_text()
        opened.page.get_by_label("Search").fill(number)
        assert opened.column("#") == []

    def test_is_filtered_by_the_beginning_of_a_key(self, opened):
        opened.page.get_by_label("Search").fill(key(2))
        assert opened.column("#") == ["3"]
        opened.page.get_by_label("Search").fill("0000")
        assert len(opened.column("#")) == 4
        opened.page.get_by_label("Search").fill("0002")
        assert opened.column("#") == []

    def test_is_filtered_by_the_value_of_an_option(self, opened):
        opened.choice(LR).select_option(label="0.01")
        assert opened.column("#") == ["2", "3"]
        opened.choice(DECAY).select_option(label="0.1")
        assert opened.column("#") == ["3"]
        opened.choice(LR).select_option(label="all")
        opened.choice(DECAY).select_option(label="all")
        assert len(opened.column("#")) == 4

    def test_opens_a_combination_by_a_click_and_closes_it_by_another(self, opened):
        row = opened.page.locator(ROWS).nth(1)
        row.locator("td").first.click()
        detail = opened.page.locator("tr.opened")
        assert detail.locator("svg").count() == 2
        title = detail.locator("svg title").first.text_content()
        assert "validation from 14.00 to 10.10 mm" in title
        assert "training from 15.00 to 11.10 mm" in title
        assert "TTIP" in detail.locator("svg").nth(1).text_content()
        statuses = detail.get_by_role("region").locator("tbody tr td:nth-child(2)").all_inner_texts()
        assert statuses == ["finished"] * 3
        assert detail.get_by_role("link").count() == 0
        row.locator("td").first.click()
        assert detail.count() == 0

    def test_leads_from_a_combination_that_has_failed_to_the_errors(self, opened):
        opened.page.locator(ROWS).nth(2).locator("td").first.click()
        opened.page.get_by_role("link", name="their errors").click()
        assert opened.page.evaluate("location.hash") == "#failures"
        assert opened.page.locator("tr.opened").count() == 1

    def test_names_its_controls_without_their_signs(self, opened):
        assert opened.page.get_by_role("button", name=LR, exact=True).count() == 1
        assert opened.page.get_by_role("button", name="test set: after", exact=True).count() == 1
        assert opened.page.get_by_role("button", name="1, open", exact=True).count() == 1

    def test_opens_a_combination_by_the_keyboard(self, opened):
        opened.page.locator(f"#open-{key(0)}").focus()
        opened.page.keyboard.press("Enter")
        button = opened.page.locator(f"#open-{key(0)}")
        assert button.get_attribute("aria-expanded") == "true"
        assert opened.page.locator("tr.opened").count() == 1
        opened.page.keyboard.press("Tab")
        opened.page.keyboard.press("Shift+Tab")
        opened.page.keyboard.press("Space")
        assert button.get_attribute("aria-expanded") == "false"
        assert opened.page.locator("tr.opened").count() == 0

    def test_opens_a_combination_of_which_nothing_was_logged(self, opened):
        opened.page.locator(ROWS).nth(3).click()
        assert opened.page.locator("tr.opened svg").count() == 0
        assert opened.page.locator("tr.opened tbody tr").count() == 3

    def test_keeps_an_opened_combination_beneath_its_row_when_sorted(self, opened):
        opened.page.locator(ROWS).nth(0).click()
        opened.page.locator("thead button", has_text="after").first.click()
        opened.page.locator("thead button", has_text="after").first.click()
        before = opened.page.locator("tr.opened").evaluate("row => row.previousElementSibling.dataset.key")
        assert before == key(0)

    def test_reaches_all_controls_in_order_and_shows_where_one_is(self, opened):
        seen = []
        for _ in range(25):
            opened.page.keyboard.press("Tab")
            seen.append(opened.page.evaluate("document.activeElement.id || document.activeElement.className"))
        places = [seen.index(name) for name in ("skip", "end-1-0-from", "end-1-0-to", "filter", "choose-0", "choose-1")]
        assert places == sorted(places)
        assert places[-1] - places[-3] == 2
        opened.page.locator(".skip").focus()
        opened.page.keyboard.press("Enter")
        opened.page.keyboard.press("Tab")
        assert opened.page.evaluate("document.activeElement.id") == "end-1-0-from"
        assert opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


class TestTheContents:
    def test_lead_to_each_section_by_the_keyboard(self, opened):
        contents = opened.page.get_by_role("navigation", name="Contents")
        assert contents.get_by_role("link").count() == opened.page.locator("main > section").count()
        contents.get_by_role("link", name="Configuration").press("Enter")
        assert opened.page.evaluate("location.hash") == "#configuration"
        contents.locator("summary").press("Enter")
        assert not contents.get_by_role("link", name="Configuration").is_visible()


class TestTheAxes:
    def place(self, opened, axis, which):
        """The middle of an end of an axis in the window; the first axis is 0."""
        handle = opened.page.locator(f"#end-1-{axis}-{which}")
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, opened, start, end):
        opened.page.mouse.move(*start)
        opened.page.mouse.down()
        opened.page.mouse.move(*end, steps=5)
        opened.page.mouse.up()

    def choose_low_rates(self, opened):
        """Drags from the smallest learning rate to a point near the middle one of three."""
        (x, low), (_, high) = self.place(opened, 0, "from"), self.place(opened, 0, "to")
        self.drag(opened, (x + 2, low - 20), (x, low + 0.45 * (high - low)))

    def test_show_a_range_and_its_combinations_in_the_table(self, opened):
        self.choose_low_rates(opened)
        assert opened.column("#") == ["1", "2", "3"]
        assert opened.page.locator("#selected").inner_text() == "3 of 4 combinations selected"
        assert opened.page.locator("#shown").inner_text() == "3 of 4 shown"
        low, high = (opened.page.locator(f"#end-1-0-{end}").get_attribute("aria-valuetext") for end in ("from", "to"))
        assert (low, high) == ("0.001", "0.01")

    def test_combine_their_ranges_with_one_another_and_with_the_search(self, opened):
        self.choose_low_rates(opened)
        (x, low), (_, high) = self.place(opened, 2, "from"), self.place(opened, 2, "to")
        self.drag(opened, (x, high + 20), (x, low + 0.8 * (high - low)))
        assert opened.column("#") == ["3"]
        opened.page.get_by_label("Search").fill("0.001")
        assert opened.column("#") == []
        opened.page.get_by_role("button", name="Remove all ranges").click()
        assert opened.column("#") == ["1"]

    def test_move_the_end_that_is_dragged(self, opened):
        self.choose_low_rates(opened)
        x, y = self.place(opened, 0, "to")
        top = self.place(opened, 1, "to")[1]
        self.drag(opened, (x + 3, y), (x, top))
        assert opened.page.locator("#end-1-0-from").get_attribute("aria-valuetext") == "0.001"
        assert opened.page.locator("#end-1-0-to").get_attribute("aria-valuetext") == "0.1"

    def test_are_used_with_keys(self, opened):
        end = opened.page.get_by_role("slider", name="lr, from")
        end.focus()
        opened.page.keyboard.press("ArrowUp")
        assert opened.column("#") == ["2", "3", "4"]
        opened.page.keyboard.press("End")
        assert opened.column("#") == ["4"]
        opened.page.keyboard.press("Escape")
        assert len(opened.column("#")) == 4
        assert end.get_attribute("aria-valuetext") == "0.001"

    def test_leave_out_lines_without_a_result_within_a_range_of_results(self, opened):
        opened.page.locator("#end-1-2-to").press("ArrowDown")
        assert opened.column("#") == ["1", "2"]

    @pytest.fixture
    def on_a_phone(self, browser, file):
        opened = Opened(browser, file.as_uri(), has_touch=True, is_mobile=True)
        opened.page.set_viewport_size({"width": 390, "height": 800})
        until(opened.page, "document.querySelector('.axes svg.lying') !== null")
        yield opened
        assert opened.complaints == []
        opened.context.close()

    def swipe(self, opened, *places):
        """Moves a finger along some places."""
        session = opened.context.new_cdp_session(opened.page)
        for kind, at in (
            ("touchStart", places[:1]),
            *(("touchMove", [place]) for place in places[1:]),
            ("touchEnd", []),
        ):
            points = [{"x": x, "y": y} for x, y in at]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            opened.page.wait_for_timeout(30)

    def test_lie_below_each_other_on_a_phone_and_are_tapped(self, on_a_phone):
        assert on_a_phone.page.evaluate("document.documentElement.scrollWidth") == 390
        place = self.place(on_a_phone, 0, "from")
        on_a_phone.page.touchscreen.tap(*place)
        assert on_a_phone.column("#") == ["1"]
        on_a_phone.page.touchscreen.tap(*place)
        assert len(on_a_phone.column("#")) == 4

    def test_take_a_finger_that_moves_along_them_and_let_one_across_them_scroll(self, on_a_phone):
        x, y = self.place(on_a_phone, 0, "from")
        self.swipe(on_a_phone, *((x + step, y) for step in (30, 50, 90, 140, 160)))
        assert on_a_phone.column("#") == ["1", "2", "3"]
        top = on_a_phone.page.evaluate("scrollY")
        x, y = self.place(on_a_phone, 1, "from")
        self.swipe(on_a_phone, *((x + 200, y - step) for step in (0, 30, 80, 160, 240)))
        assert on_a_phone.column("#") == ["1", "2", "3"]
        assert on_a_phone.page.evaluate("scrollY") > top + 50

    def test_of_several_data_sets_show_only_those_on_which_there_is_a_range(self, browser, tmp_path):
        grid = itertools.product(["one", "two"], [1e-3, 1e-2], [0.0, 0.1])
        paths = ("experiment_config.test_set", "optimizer_args.lr", "optimizer_args.weight_decay")
        combinations = [(dict(zip(paths, values, strict=True)), [9.0 + place]) for place, values in enumerate(grid)]
        (tmp_path / "report.html").write_text(
            page_of(write_experiment(tmp_path / "sweep", combinations)), encoding="utf-8"
        )
        opened = Opened(browser, (tmp_path / "report.html").as_uri())
        assert opened.page.locator(".axes canvas").count() == 2
        opened.page.locator("#end-2-0-from").press("ArrowUp")
        assert opened.column("#") == ["7", "8"]
        assert opened.page.locator("#selected").inner_text() == "2 of 8 combinations selected"
        opened.page.locator("#end-1-1-from").press("ArrowUp")
        assert opened.column("#") == ["2", "4", "7", "8"]
        assert opened.complaints == []
        opened.context.close()

    def test_are_drawn_in_the_colours_of_the_page(self, opened):
        canvas = opened.page.locator(".axes canvas")
        pictures = []
        for scheme in ("light", "dark"):
            opened.page.emulate_media(color_scheme=scheme)
            opened.page.wait_for_timeout(100)
            pictures.append(canvas.evaluate("canvas => canvas.toDataURL()"))
        assert len(set(pictures)) == 2
        assert opened.page.evaluate("document.querySelector('.axes canvas').width") > 500


class TestTheAddress:
    def view(self, opened):
        return opened.column("#"), opened.page.locator("[aria-sort=descending]").all_inner_texts()

    def choose(self, opened):
        """Sorts, filters and chooses a range, in three steps."""
        for _ in range(2):
            opened.page.locator("thead button", has_text=LR).click()
        opened.choice(DECAY).select_option(label="0")
        opened.page.locator("#end-1-0-from").press("ArrowUp")

    def test_shows_the_same_view_to_whoever_opens_it(self, opened, browser):
        self.choose(opened)
        opened.page.get_by_label("Search").fill("0.0")
        expected = self.view(opened)
        assert expected[0] == ["2"]
        again = Opened(browser, opened.page.url)
        assert self.view(again) == expected
        assert again.page.get_by_label("Search").input_value() == "0.0"
        assert again.choice(DECAY).input_value() == "=0"
        assert again.page.locator("#selected").inner_text() == "3 of 4 combinations selected"
        again.context.close()

    def test_goes_back_step_by_step_and_forward(self, opened):
        self.choose(opened)
        seen = [self.view(opened)]
        for _ in range(4):
            opened.page.go_back()
            seen.append(self.view(opened))
        assert [rows for rows, _ in seen] == [
            ["4", "2"],
            ["4", "2", "1"],
            ["4", "2", "3", "1"],
            ["1", "2", "3", "4"],
            ["1", "2", "3", "4"],
        ]
        assert "#" not in opened.page.url
        for _ in range(4):
            opened.page.go_forward()
        assert self.view(opened) == seen[0]

    def test_has_one_step_for_a_search(self, opened):
        opened.page.get_by_label("Search").press_sequentially("failed")
        assert opened.page.url.endswith("#search=failed")
        opened.page.go_back()
        assert opened.page.get_by_label("Search").input_value() == ""
        assert len(opened.column("#")) == 4

    def test_keeps_the_view_on_the_way_to_a_section(self, opened, browser):
        self.choose(opened)
        view = self.view(opened)
        opened.page.locator("#contents a", has_text="Configuration").click()
        assert self.view(opened) == view
        until(opened.page, "location.hash.startsWith('#configuration&')")
        again = Opened(browser, opened.page.url)
        assert self.view(again) == view
        until(again.page, "document.getElementById('configuration').getBoundingClientRect().top < innerHeight")
        again.context.close()
        opened.page.go_back()
        assert self.view(opened) == view

    @pytest.mark.parametrize(
        "fragment",
        [
            "from.lr=9&to.lr=10",
            "from.lr=x&to.lr=y",
            "from.lr=0.1&to.lr=0.001",
            "from.lr=0.01",
            "from.gone=1&to.gone=2&is.gone=1&sort=gone",
            "is.lr=7&sort=__proto__&is.__proto__=1",
            "%E0%A4%A&=&&&is.=",
            "is.lr=<img src=x onerror=alert(1)>",
        ],
    )
    def test_that_names_what_is_not_there_hides_nothing(self, browser, file, fragment):
        opened = Opened(browser, f"{file.as_uri()}#{fragment}")
        assert opened.column("#") == ["1", "2", "3", "4"]
        assert opened.complaints == []
        opened.context.close()


class TestTheViewer:
    def view(self, opened):
        return opened.page.evaluate("({...window.report.view})")

    def picture(self, opened):
        opened.page.wait_for_timeout(150)
        return opened.page.locator(".viewer canvas").screenshot()

    def test_turns_by_dragging_and_by_arrow_keys(self, opened):
        canvas = opened.page.locator(".viewer canvas")
        canvas.scroll_into_view_if_needed()
        first, at_first = self.picture(opened), self.view(opened)
        box = canvas.bounding_box()
        opened.page.mouse.move(box["x"] + 300, box["y"] + 200)
        opened.page.mouse.down()
        opened.page.mouse.move(box["x"] + 400, box["y"] + 230, steps=4)
        opened.page.mouse.up()
        dragged, after_drag = self.picture(opened), self.view(opened)
        assert after_drag["yaw"] < at_first["yaw"]
        assert after_drag["pitch"] > at_first["pitch"]
        canvas.focus()
        opened.page.keyboard.press("ArrowRight")
        assert self.view(opened)["yaw"] > after_drag["yaw"]
        assert len({first, dragged, self.picture(opened)}) == 3

    def test_zooms_by_keys_wheel_and_buttons(self, opened):
        canvas = opened.page.locator(".viewer canvas")
        canvas.focus()
        zooms = [self.view(opened)["zoom"]]
        opened.page.keyboard.press("+")
        zooms.append(self.view(opened)["zoom"])
        canvas.hover()
        opened.page.mouse.wheel(0, -100)
        until(opened.page, f"window.report.view.zoom > {zooms[-1]}")
        zooms.append(self.view(opened)["zoom"])
        opened.page.get_by_role("button", name="Zoom in").click()
        zooms.append(self.view(opened)["zoom"])
        assert zooms == sorted(set(zooms))
        opened.page.get_by_role("button", name="Look from the front").click()
        assert (self.view(opened)["zoom"], self.view(opened)["yaw"]) == (1, 0)

    def test_steps_through_the_log_points_and_the_correction_improves(self, opened):
        slider, readout = opened.page.locator("#viewer-step"), opened.page.locator("#viewer-readout")
        distances, pictures = [], []
        for step in range(4):
            slider.fill(str(step))
            text = readout.inner_text()
            assert text.startswith(f"epoch {step + 1}: ")
            distances.append(float(text.split()[2]))
            pictures.append(self.picture(opened))
        assert distances == sorted(distances, reverse=True)
        assert len(set(pictures)) == 4
        assert slider.get_attribute("aria-valuetext") == readout.inner_text()

    def test_plays_from_the_first_log_point_to_the_last(self, opened):
        opened.page.locator("#viewer-play").click()
        assert opened.page.locator("#viewer-readout").inner_text().startswith("epoch 1:")
        until(opened.page, "document.querySelector('#viewer-play').textContent === 'Play'")
        assert opened.page.locator("#viewer-readout").inner_text().startswith("epoch 4:")

    @pytest.mark.parametrize("kind", ["label", "input", "corrected"])
    def test_shows_and_hides_each_hand(self, opened, kind):
        before = self.picture(opened)
        opened.page.locator(f"#viewer-{kind}").uncheck()
        assert self.picture(opened) != before
        opened.page.locator(f"#viewer-{kind}").check()
        assert self.picture(opened) == before

    def test_shows_another_example(self, opened):
        before = self.picture(opened)
        opened.page.locator("#viewer-example").select_option(label="sample 70")
        assert self.picture(opened) != before
        assert "sample 70" in opened.page.locator(".viewer canvas").get_attribute("aria-label")

    def test_draws_with_webgl_where_there_is_some(self, opened):
        assert opened.page.locator(".viewer canvas").get_attribute("data-painter") == "solid"

    def test_draws_without_webgl_too(self, flat_browser, file):
        opened = Opened(flat_browser, file.as_uri())
        canvas = opened.page.locator(".viewer canvas")
        assert canvas.get_attribute("data-painter") == "flat"
        before = self.picture(opened)
        canvas.focus()
        opened.page.keyboard.press("ArrowLeft")
        assert self.picture(opened) != before
        assert [text for text in opened.complaints if "WebGL" not in text] == []
        opened.context.close()


class TestHowItIsRead:
    def test_without_scripts_all_is_there(self, browser, file):
        opened = Opened(browser, file.as_uri(), java_script_enabled=False)
        text = opened.page.locator("body").inner_text()
        for words in ("lr 0.001 with weight decay 0 is best", "ValueError: " + HOSTILE, "git checkout 0123abc"):
            assert words in text
        assert opened.page.locator(ROWS).count() == 4
        assert opened.page.locator("#examples img").is_visible()
        assert not opened.page.locator(".tools").is_visible()
        assert not opened.page.locator(".parallel").is_visible()
        assert opened.page.locator("#pictures img[alt^='All combinations']").is_visible()
        opened.context.close()

    def test_the_page_is_dark_where_the_reader_wants_it_so(self, opened):
        def lightness():
            return opened.page.evaluate(
                "[document.body].map(b => [getComputedStyle(b).backgroundColor, getComputedStyle(b).color]"
                ".map(c => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 765))[0]"
            )

        paper, ink = lightness()
        assert paper > 0.9 > 0.2 > ink
        opened.page.emulate_media(color_scheme="dark")
        paper, ink = lightness()
        assert paper < 0.2 < 0.8 < ink

    def test_pictures_lie_on_a_white_card_in_the_dark(self, opened):
        picture = opened.page.locator("#pictures img").first
        paddings = []
        for scheme in ("light", "dark"):
            opened.page.emulate_media(color_scheme=scheme)
            assert picture.evaluate("image => getComputedStyle(image).backgroundColor") == "rgb(255, 255, 255)"
            paddings.append(picture.evaluate("image => parseFloat(getComputedStyle(image).paddingLeft)"))
        assert paddings[0] == 0 < paddings[1]

    def test_on_paper_there_are_no_controls_and_nothing_is_cut(self, opened):
        opened.page.emulate_media(media="print")
        for control in (".tools", ".viewer", ".parallel", "#contents"):
            assert not opened.page.locator(control).is_visible()
        assert opened.page.locator("#examples img").is_visible()
        assert opened.page.locator("#configuration details").nth(1).locator("td").first.is_visible()
        cut = opened.page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(b => b.scrollHeight > b.clientHeight + 1).length"
        )
        assert cut == 0

    def test_on_a_narrow_screen_only_tables_scroll(self, opened):
        opened.page.set_viewport_size({"width": 360, "height": 700})
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360

    def test_everything_has_a_name_for_a_screen_reader(self, opened):
        opened.page.locator(ROWS).first.click()
        named = "button, input, select, canvas, img, svg[role=img], [role=region]"
        has_name = "e.getAttribute('aria-label') || e.labels?.length || e.alt || e.textContent.trim()"
        nameless = opened.page.evaluate(
            f"[...document.querySelectorAll('{named}')].filter(e => !({has_name})).map(e => e.outerHTML)"
        )
        assert nameless == []
        ids = opened.page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))
        levels = opened.page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


class TestTheLivePage:
    @pytest.fixture
    def folder(self, tmp_path):
        return write_sweep(tmp_path / "sweep")

    @pytest.fixture
    def may_draw(self, monkeypatch):
        """The event that the drawing of pictures waits for."""
        may_draw = threading.Event()

        def waiting(*given, **how):
            assert may_draw.wait(60)
            return draw(*given, **how)

        monkeypatch.setattr(live_server, "draw", waiting)
        yield may_draw
        may_draw.set()

    @pytest.fixture
    def served(self, browser, folder, may_draw, monkeypatch):
        for pause in ("_PAUSE_S", "_PICTURES_PAUSE_S", "_SHARE"):
            monkeypatch.setattr(live_server, pause, 0)
        with ReportServer(folder) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            opened = Opened(browser, server.address, reduced_motion="reduce")  # scrolling is immediate
            opened.server = server
            yield opened
            opened.context.close()
            server.shutdown()
            thread.join()
            may_draw.set()

    def test_shows_what_is_new_and_keeps_what_the_reader_did(self, served, folder):
        page = served.page
        page.locator("thead button", has_text="weight_decay").click()
        page.locator("thead button", has_text="weight_decay").click()
        page.locator(f"#open-{key(0)}").press("Enter")
        page.locator("#configuration details").nth(1).locator("summary").click()
        page.locator("#end-1-1-to").press("ArrowDown")
        page.get_by_label("Search").fill("0")
        page.evaluate("window.stayed = true")
        for repetition in range(3):
            write_trial(folder, f"{key(3)}/{repetition}", 8.0)
        until(page, "document.querySelector('.lead').textContent.startsWith('lr 0.1 ')")
        assert page.evaluate("window.stayed")
        assert served.column(DECAY) == ["0", "0", "0"]
        assert page.locator("[aria-sort=descending]").inner_text().strip() == DECAY
        assert page.locator("#end-1-1-to").get_attribute("aria-valuetext") == "0"
        assert page.get_by_label("Search").input_value() == "0"
        assert page.evaluate("document.activeElement.id") == "filter"
        assert page.locator(f"#open-{key(0)}").get_attribute("aria-expanded") == "true"
        assert page.locator("tr.opened svg").count() == 2
        assert page.locator("#configuration details").nth(1).get_attribute("open") is not None
        assert "8 finished" not in page.locator("#announcement").inner_text()
        assert page.locator("#announcement").inner_text().startswith("12 trials")
        assert served.complaints == []
        assert {url.rpartition("/")[0] + "/" for url in served.requests if not url.startswith("data:")} == {
            served.server.address
        }

    def test_gets_its_pictures_without_moving_what_is_read(self, served, folder, may_draw):
        page = served.page
        assert "The pictures are being drawn" in page.locator("#pictures").inner_text()
        page.locator("#configuration details").nth(1).locator("summary").click()
        page.locator("#configuration").evaluate("section => section.scrollIntoView({behavior: 'instant'})")
        place = "document.getElementById('configuration').getBoundingClientRect().top"
        height = "document.documentElement.scrollHeight"
        before, height_before = page.evaluate(place), page.evaluate(height)
        may_draw.set()
        until(page, "document.querySelectorAll('#pictures img').length > 1")
        assert page.evaluate(height) > height_before + 500
        assert page.evaluate(place) == pytest.approx(before, abs=1)
        page.wait_for_timeout(300)  # pictures are decoded after the layout
        assert page.evaluate(place) == pytest.approx(before, abs=1)
        assert page.locator("#configuration details").nth(1).get_attribute("open") is not None
        assert "As of " in page.locator("#pictures p").inner_text()
        assert page.locator("#contents a", has_text="Pictures").count() == 1
        assert served.complaints == []

    def test_keeps_open_and_in_its_place_whatever_the_reader_opened_and_moved(self, served, folder, may_draw):
        page = served.page
        for place, error in enumerate(("one", "another"), 10):
            for repetition in range(4):
                write_trial(folder, f"{key(place)}/{repetition}", error)
        page.set_viewport_size({"width": 500, "height": 800})
        page.locator(f"#open-{key(0)}").press("Enter")
        page.locator("tr.opened details summary").press("Enter")
        page.locator("#contents summary").press("Enter")
        page.locator("#best details summary").last.press("Enter")
        page.locator("#best .scroll").first.evaluate("box => { box.scrollLeft = 10; }")
        page.locator("#best details summary").last.focus()
        page.locator("#best").evaluate("section => section.scrollIntoView({behavior: 'instant'})")
        top = "document.getElementById('best').getBoundingClientRect().top"
        before = page.evaluate(top)
        for repetition in range(3):
            write_trial(folder, f"{key(0)}/{repetition}", 8.0)
        until(page, "document.querySelector('.lead').textContent.includes('9.00')")
        assert page.locator("tr.opened details").get_attribute("open") is not None
        assert page.locator("#contents details").get_attribute("open") is None
        assert page.locator("#best details").last.get_attribute("open") is not None
        assert page.locator("#best .scroll").first.evaluate("box => box.scrollLeft") == 10
        assert page.evaluate("document.activeElement.closest('#best details summary') !== null")
        assert page.evaluate(top) == pytest.approx(before, abs=1)
        assert served.complaints == []

    def test_gets_the_viewer_when_the_first_examples_come(self, served, folder):
        folder.trial(f"{key(0)}/0").remove("examples.npz")
        until(served.page, "!document.getElementById('examples')")
        write_examples(folder, f"{key(0)}/1")
        served.page.wait_for_selector(".viewer canvas", timeout=20_000)
        assert f"{key(0)}/1" in served.page.locator("#examples").inner_text()

    def test_says_so_when_its_server_is_gone(self, served, may_draw):
        may_draw.set()  # a server that closes waits for the current picture
        served.server.shutdown()
        served.server.server_close()
        served.page.wait_for_selector("#live.lost", timeout=20_000)
        assert "its server does not respond" in served.page.locator("#live").inner_text()
        assert served.page.locator(ROWS).count() == 4
