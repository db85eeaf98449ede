"""The pages in a real browser: what people see, type and are told. Skipped where there is no Chromium."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Playwright, expect, sync_playwright

from mainstay.domain.allocation import End, Seen
from mainstay.domain.fleet import ClusterKind, Contact, lease_of
from mainstay.domain.plan import MoveEndpoint, StopPod
from mainstay.domain.reason import Code
from mainstay.domain.workload import Phase, PodSet
from mainstay.operations import sessions
from mainstay.operations.sessions import cookie_name
from tests.contracts.test_store_clusters import add, see
from tests.stores import TENANT
from tests.unit.web.site import Site, running_site, size, why
from tests.unit.web.world import World, furnish

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; scripts/ensure-chromium installs one"),
    pytest.mark.xdist_group("browser"),
]
PATIENCE_MS = 10_000
expect.set_options(timeout=PATIENCE_MS)
WIDE, NARROW = 1280, 400


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="module")
def world(site: Site) -> World:
    return furnish(site)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(world: World, playwright: Playwright) -> Iterator[Browser]:
    launched = playwright.chromium.launch(executable_path=CHROMIUM)
    yield launched
    launched.close()


@contextmanager
def opened(
    browser: Browser, site: Site, *, role: str = "platform-admin", faults_expected: bool = False, **options: Any
) -> Iterator[Page]:
    """A page of a browser that is signed in. Whatever its console says against us fails the test."""
    context = browser.new_context(viewport={"width": WIDE, "height": 900}, locale="en-GB", **options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            faults.append(message.text)

    page.on("console", on_console)
    page.on("pageerror", lambda error: faults.append(str(error)))
    cookie = site.cookie(role=role)
    name = cookie_name(site.services.system, secure=False)
    context.add_cookies([{"name": name, "value": cookie, "url": site.url, "httpOnly": True, "sameSite": "Strict"}])
    try:
        yield page
    finally:
        context.close()
    assert faults_expected or not faults, faults


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with opened(browser, site) as signed_in:
        yield signed_in


def row(page: Page, name: str) -> Locator:
    return page.locator("#runs tbody tr").filter(has=page.get_by_role("link", name=name, exact=True))


def poll(question: Callable[[], Any], answer: Any) -> None:
    """For what no locator waits for."""
    end = time.monotonic() + PATIENCE_MS / 1_000
    while question() != answer:
        assert time.monotonic() < end, (question(), answer)
        time.sleep(0.05)


def settled(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    page.wait_for_timeout(150)


# Signing in and out


def test_a_link_signs_in_once_and_leaves_no_code_in_the_history(browser, site):
    link = site.link()
    with opened(browser, site, faults_expected=True) as page:
        page.context.clear_cookies()
        page.goto(link)
        page.wait_for_url(f"{site.url}/runs")
        expect(page.get_by_role("heading", name="Runs", level=1)).to_be_visible()
        cookies = page.context.cookies()
        assert [(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [(True, "Strict")]
        assert page.evaluate("document.cookie") == ""
        page.context.clear_cookies()
        page.goto(link)
        expect(page.get_by_role("alert")).to_contain_text("mainstay login --page")
        assert page.url == f"{site.url}/sign-in"


def test_without_a_session_there_is_only_the_way_to_one(browser, site):
    context = browser.new_context()
    page = context.new_page()
    for path in ("/", "/runs", "/runs/digits-1", "/endpoints", "/nodes", "/cost", "/events"):
        page.goto(site.url + path)
        assert page.url == f"{site.url}/sign-in"
    expect(page.get_by_text("mainstay login --page")).to_be_visible()
    context.close()


def test_signing_out_ends_the_session(page, site):
    settled(page, site.url + "/runs")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{site.url}/sign-in")
    page.goto(f"{site.url}/runs")
    assert page.url == f"{site.url}/sign-in"


def test_a_session_that_has_ended_leads_back_to_the_sign_in(browser, site):
    with opened(browser, site, faults_expected=True) as page:
        settled(page, site.url + "/runs")
        (cookie,) = page.context.cookies()
        now = site.services.clock.now()
        session = sessions.session(site.store, cookie["value"], now=now)
        assert session is not None
        sessions.end(site.store, session.principal, now=now)
        page.get_by_label("All").click(no_wait_after=True)
        page.wait_for_url(f"{site.url}/sign-in")


# The list of runs


def test_a_run_is_listed_with_its_state_and_why(page, site, world):
    settled(page, site.url + "/runs")
    waiting = row(page, "sweep")
    expect(waiting).to_contain_text("queued")
    expect(waiting).to_contain_text(
        "needs 8 CPUs, 64 GiB, 8 x H100, the most that is free on one node is 32 CPUs, 256 GiB, 4 x H100"
    )
    expect(waiting).to_contain_text("8\u00a0CPUs · 64\u00a0GiB · 8\u00a0×\u00a0H100")
    expect(waiting.locator("svg.symbol")).to_be_visible()
    running = row(page, "bert")
    expect(running).to_contain_text("running")
    expect(running.locator("td[data-label=Nodes]")).to_have_text("4")
    expect(row(page, "tokenizer-test")).to_have_count(0)


def test_a_run_appears_changes_and_goes_by_itself(page, site):
    settled(page, site.url + "/runs")
    expect(row(page, "bert")).to_be_visible()
    page.evaluate("window.same = true")
    work = site.at(0).scene.submit(name="newcomer")
    expect(row(page, "newcomer")).to_contain_text("pending")
    row(page, "newcomer").get_by_role("link").focus()
    site.place(work, "atlas")
    expect(row(page, "newcomer")).to_contain_text("placed on atlas")
    assert page.evaluate("document.activeElement.textContent") == "newcomer"
    site.running(work)
    expect(row(page, "newcomer")).to_contain_text("running")
    site.ended(work)
    site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)
    expect(row(page, "newcomer")).to_have_count(0)
    assert page.evaluate("window.same")


def test_filters_stand_in_the_address_and_can_be_gone_back_from(page, site):
    settled(page, site.url + "/runs")
    page.get_by_label("All").check()
    expect(row(page, "tokenizer-test")).to_be_visible()
    page.get_by_label("Project").fill("nlp")
    page.get_by_label("Project").press("Enter")
    expect(row(page, "digits")).to_have_count(0)
    assert page.url == f"{site.url}/runs?all=true&project=nlp"
    page.get_by_label("Name").fill("tokenizer-test")
    page.get_by_label("Name").press("Enter")
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    page.go_back()
    expect(page.get_by_label("Name")).to_have_value("")
    poll(lambda: page.locator("#runs tbody tr").count() > 1, answer=True)
    page.goto(f"{site.url}/runs?all=true&name=tokenizer-test")
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    expect(page.get_by_label("All")).to_be_checked()


def test_a_long_list_goes_on_by_pages(page, site):
    names = [site.at(0).scene.submit(name="many", project="long").id for _ in range(60)]
    page.goto(f"{site.url}/runs?project=long")
    expect(page.locator("#runs tbody tr")).to_have_count(50)
    first = page.locator("#runs .id").all_text_contents()
    page.get_by_role("link", name="Older").click()
    expect(page.locator("#runs tbody tr")).to_have_count(10)
    second = page.locator("#runs .id").all_text_contents()
    assert [name for name in first + second if name in names] == names[::-1]
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("#runs tbody tr")).to_have_count(50)


def test_an_empty_list_says_what_to_type(browser, tmp_path):
    with running_site(tmp_path) as empty, opened(browser, empty) as page:
        for path, words in (
            ("/runs", "mainstay run -- python"),
            ("/runs?all=true", "No runs yet"),
            ("/runs?name=none", "No such runs"),
            ("/endpoints", "mainstay deploy"),
            ("/clusters", "No clusters yet"),
            ("/nodes", "No nodes yet"),
            ("/cost", "Nothing was used"),
        ):
            page.goto(empty.url + path)
            expect(page.get_by_text(words)).to_be_visible()


# One run


def run_page(page: Page, site: Site, work: Any) -> None:
    page.goto(f"{site.url}/runs/{work.id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(work.spec.name)


def test_a_run_shows_what_it_is_and_what_to_do_next(page, site, world):
    run_page(page, site, world.running)
    head = page.locator(".run-head")
    expect(head).to_contain_text("running")
    expect(head).to_contain_text("Runs on boreas, 4 pods")
    expect(head).to_contain_text("submitted by ada")
    expect(page.locator("#pods tbody tr")).to_have_count(4)
    expect(page.get_by_label("Command", exact=True)).to_have_text("torchrun --nnodes 4 train.py --note 'it'\\''s fine'")
    expect(page.get_by_text(f"mainstay logs -f {world.running.id}")).to_be_visible()
    expect(page.locator("#cost")).to_contain_text("$")


def test_a_run_of_several_pod_sets_says_what_each_of_them_gets(page, site):
    head = PodSet(name="head", nodes=1, resources=size(cpus=1, gib=1))
    sets = (head, PodSet(name="worker", nodes=2, resources=size(cpus=4, gib=8, gpus=1)))
    work = site.at(0).scene.submit(name="impala", project="sets", nodes=3, sets=sets, choices=(head.resources,))
    page.goto(f"{site.url}/runs?project=sets")
    expect(page.locator("#runs tbody tr")).to_contain_text(re.compile(r"1 × head: 1\sCPU.*; 2 × worker: 4\sCPUs"))
    run_page(page, site, work)
    expect(page.get_by_text("Pod sets")).to_be_visible()
    expect(page.get_by_text(re.compile(r"2 × worker: 4\sCPUs"))).to_be_visible()
    site.place(work, "atlas")
    run_page(page, site, work)
    for rank, name in enumerate(("head", "worker", "worker")):
        expect(page.locator("#pods tbody tr").nth(rank)).to_contain_text(f"{work.id}-1-{rank}{name}")


def test_the_timeline_has_a_lane_per_pod_and_the_same_in_words(page, site, world):
    run_page(page, site, world.succeeded)
    picture = page.locator("#timeline svg[role=img]")
    expect(picture.locator(".lane-name")).to_have_count(3)
    expect(picture.locator("desc")).to_contain_text("pending for 4 min")
    expect(picture.locator("desc")).to_contain_text("running for 10 min")
    expect(picture.locator(".mark-bad")).to_have_count(2)
    expect(picture.locator(".mark-good")).to_have_count(2)
    titles = picture.locator("title").all_text_contents()
    assert any("attempt 1 failed" in title for title in titles)
    assert any(title.startswith("succeeded") for title in titles)
    page.get_by_text("The same as a table").click()
    cells = page.locator("#timeline tbody tr td:nth-child(3)").all_text_contents()
    assert {"1", "2"} == set(cells)


def test_a_waiting_run_says_why_and_what_would_let_it_start(page, site, world):
    run_page(page, site, world.waiting)
    box = page.locator("#explain")
    expect(box).to_contain_text("It would start now with one of these changes")
    expect(box).to_contain_text("gpus: 4 instead of 8")
    expect(box).to_contain_text(re.compile(r"On the \d nodes? that would do, queue default holds \d+ GPUs? in "))
    expect(box).to_contain_text(re.compile("Nobody knows when it starts: |xpected to start "))


def test_hostile_text_in_a_log_stays_text(page, site, world):
    run_page(page, site, world.running)
    log = page.get_by_role("log")
    expect(log).to_contain_text("epoch 1 loss 0.51")
    text = log.inner_text()
    assert "<script>window.hacked = true</script><img src=x onerror='window.hacked = true'>" in text
    assert "</div></main><h1>not a heading</h1>" in text
    assert "red and plain" in text
    assert "a title" not in text
    assert not set(text) & {"\x1b", "\u202e", "\x00"}
    assert log.locator("script, img, h1").count() == 0
    assert page.evaluate("window.hacked") is None
    assert "196,000 more characters" in text
    assert len(log.inner_text()) < 10_000


def test_a_log_follows_pauses_and_is_chosen_by_rank(page, site, world):
    run_page(page, site, world.running)
    log, pod = page.get_by_role("log"), f"{world.running.id}-1-0"
    site.cluster.logs[pod] += b"half a line,"
    expect(log).to_contain_text("half a line,")
    site.cluster.logs[pod] += b" and its end\n"
    expect(log).to_contain_text("half a line, and its end")
    page.get_by_role("button", name="Pause").click()
    site.cluster.logs[pod] += b"said while nobody looked\n"
    expect(page.locator("#log-state")).to_contain_text("paused; 25 B")
    assert "nobody looked" not in log.inner_text()
    page.get_by_role("button", name="Go on").click()
    expect(log).to_contain_text("said while nobody looked")
    page.get_by_label("Rank").select_option("2")
    expect(log).to_have_text("rank 2 is here")
    assert page.evaluate("getComputedStyle(document.getElementById('log')).whiteSpace") == "pre"
    page.get_by_label("Wrap").check()
    assert page.evaluate("getComputedStyle(document.getElementById('log')).whiteSpace") == "pre-wrap"


def test_a_long_log_keeps_its_end_and_little_of_the_page(page, site):
    work = site.at(30).scene.submit(name="chatty")
    site.place(work, "atlas")
    site.running(work)
    pod = f"{work.id}-1-0"
    site.cluster.logs[pod] = b"".join(b"line %d\n" % number for number in range(300_000))
    run_page(page, site, work)
    log = page.get_by_role("log")
    expect(log).to_contain_text("line 299999")
    lines = log.inner_text().splitlines()
    assert len(lines) <= 5_000
    assert lines == [f"line {number}" for number in range(300_000 - len(lines), 300_000)]
    assert len(lines) > 4_700
    assert page.evaluate("document.getElementById('log').childElementCount") < 50
    expect(page.locator("#log-note")).to_contain_text("earlier lines are not shown here")
    assert (
        page.evaluate("(box => box.scrollHeight - box.scrollTop - box.clientHeight)(document.getElementById('log'))")
        < 5
    )
    page.evaluate("document.getElementById('log').scrollTop = 1000")
    page.wait_for_timeout(100)
    site.cluster.logs[pod] += b"one more\n"
    expect(log).to_contain_text("one more")
    assert page.evaluate("document.getElementById('log').scrollTop") < 2_000
    site.ended(work)
    site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)
    expect(page.locator("#log-state")).to_have_text("ended")
    with page.expect_download() as download:
        page.locator("#download").click()
    assert Path(download.value.path()).read_bytes() == site.cluster.logs[pod]


def test_a_log_goes_on_with_the_next_attempt_and_an_older_one_can_be_chosen(page, site):
    work = site.at(30).scene.submit(name="phoenix")
    site.place(work, "atlas")
    site.running(work)
    site.cluster.logs[f"{work.id}-1-0"] = b"first life\n"
    run_page(page, site, work)
    log = page.get_by_role("log")
    expect(log).to_contain_text("first life")
    site.ended(work, end=End.LOST, exit_code=None)
    work = site.advance(work, Phase.PENDING, Code.BACKING_OFF, attempt=2, seconds=1)
    site.place(work, "atlas")
    site.cluster.logs[f"{work.id}-2-0"] = b"second life\n"
    site.running(work)
    expect(log).to_contain_text("end of attempt 1; attempt 2 follows")
    expect(log).to_contain_text("second life")
    page.get_by_label("Attempt").select_option("1")
    expect(log).not_to_contain_text("second life")
    expect(log).to_contain_text("first life")


def test_outputs_are_saved_under_their_own_names(page, site, world):
    run_page(page, site, world.succeeded)
    expect(page.locator("#outputs")).to_contain_text("4 files")
    with page.expect_download() as download:
        page.get_by_role("link", name="metrics.json").click()
    assert download.value.suggested_filename == "metrics.json"
    assert Path(download.value.path()).read_bytes() == b'{"accuracy": 0.97}\n'


def test_stopping_asks_first_and_then_is_seen(page, site):
    work = site.at(60).scene.submit(name="unwanted")
    site.place(work, "atlas")
    site.running(work)
    run_page(page, site, work)
    site.scene.applied(site.scene.see(site.pods(work)[0], Seen.RUNNING, detail="its helper does not start"))
    expect(page.locator("#reason")).to_have_text("Runs on atlas: its helper does not start")
    page.get_by_role("button", name="Stop this run").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Keep it running")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert not site.scene.workload(work.id).stop_requested
    page.get_by_role("button", name="Stop this run").click()
    dialog.get_by_role("button", name="Stop it").click()
    expect(page.get_by_role("button", name="Stopping…")).to_be_disabled()
    assert site.scene.workload(work.id).stop_requested
    site.at(40).scene.applied(StopPod(allocation_key=site.pods(work)[0].key, reason=why(Code.STOP_REQUESTED)))
    expect(page.locator("#meta")).to_contain_text("stopping for 4")
    expect(page.locator("#phase")).to_have_text("stopping")
    expect(page.locator("#reason")).to_have_text("Was told to end: its helper does not start")
    expect(page.locator("#pods tbody")).to_contain_text("stopping")
    expect(page.locator("#pods tbody")).not_to_contain_text("running")
    site.at(0).ended(work, end=End.STOPPED, exit_code=None)
    site.advance(work, Phase.STOPPED, Code.STOPPED)
    expect(page.locator(".run-head")).to_contain_text("Stopped on request")
    expect(page.locator("#stop")).to_be_hidden()


def test_a_viewer_is_offered_nothing_that_would_be_refused(browser, site, world):
    with opened(browser, site, role="viewer") as page:
        run_page(page, site, world.running)
        expect(page.locator("#stop")).to_be_hidden()
        page.goto(f"{site.url}/endpoints")
        expect(page.locator(".endpoint").first).to_be_visible()
        expect(page.get_by_role("button", name="Remove")).to_have_count(0)


def test_a_refusal_is_told_with_its_hint(browser, site):
    with opened(browser, site, faults_expected=True) as page:
        page.goto(f"{site.url}/runs/nothing-like-this")
        message = page.get_by_role("alert")
        expect(message).to_contain_text("nothing-like-this")
        message.get_by_role("button", name="Dismiss").click()
        expect(message).to_have_count(0)
        page.goto(f"{site.url}/runs?cursor=abc")
        expect(page.get_by_role("alert")).to_contain_text("hint: pass `next` of the page before, unchanged")


# Endpoints, nodes, cost, events


def test_an_endpoint_says_what_serves_and_how_to_ask_it(page, site, world):
    page.goto(f"{site.url}/endpoints/digits")
    assert page.url == f"{site.url}/endpoints#digits"
    card = page.get_by_role("region", name="Endpoint digits", exact=True)
    expect(card).to_contain_text("switching")
    expect(card.get_by_role("link", name=world.service.id)).to_be_visible()
    card.get_by_text("How to call it").click()
    line = card.get_by_label("Command line")
    expect(line).to_contain_text(f"{site.url}/endpoints/digits/v2/models/digits/infer")
    expect(line).to_contain_text('"name":"pixels","shape":[1,8],"datatype":"FP64","data":[0,0,0,0,0,0,0,0]')
    expect(page.locator("#models tr")).to_have_count(2)


def test_an_endpoint_changes_by_itself_and_is_removed_after_a_question(page, site):
    page.goto(f"{site.url}/endpoints")
    card = page.get_by_role("region", name="Endpoint digits", exact=True)
    expect(card).to_contain_text("switching")
    site.at(0).scene.applied(
        MoveEndpoint(tenant=TENANT, endpoint="digits", address="", reason=why(Code.POD_LOST, detail="gone"))
    )
    expect(card).to_contain_text("starting")
    site.scene.applied(MoveEndpoint(tenant=TENANT, endpoint="digits", address=site.model, reason=why(Code.POD_RUNNING)))
    expect(card).to_contain_text("switching")
    gone = page.get_by_role("region", name="Endpoint digits-canary", exact=True)
    gone.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove it").click()
    expect(gone).to_have_count(0)


def test_nodes_show_what_is_used_of_what_there_is(page, site):
    page.goto(f"{site.url}/nodes")
    node = page.locator(".node").filter(has_text="boreas")
    meter = node.get_by_role("meter", name="GPU H100")
    expect(meter).to_have_attribute("aria-valuenow", "4")
    expect(meter).to_have_attribute("aria-valuetext", "4 of 8")
    share = meter.evaluate("bar => bar.firstElementChild.offsetWidth / bar.offsetWidth")
    assert share == pytest.approx(0.5, abs=0.02)
    expect(page.locator(".node").filter(has_text="calypso")).to_contain_text("not ready")
    pods = node.get_by_role("meter", name="Pods")
    there = int(pods.get_attribute("aria-valuenow") or 0)
    expect(pods).to_have_attribute("aria-valuetext", f"{there} of 104")
    before = node.get_by_role("meter", name="CPU").get_attribute("aria-valuenow")
    work = site.at(0).scene.submit(name="guest", choices=(size(cpus=2, gib=1),))
    site.place(work, "boreas")
    expect(node.get_by_role("meter", name="CPU")).to_have_attribute("aria-valuenow", str(int(before or 0) + 2))
    expect(pods).to_have_attribute("aria-valuetext", f"{there + 1} of 104")
    site.ended(work)
    site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)


def test_queues_are_a_tree_with_what_each_uses_borrows_and_lends(page, site, world):
    page.goto(f"{site.url}/queues")
    cohort, nlp, vision = (
        page.get_by_label(name, exact=True) for name in ("Cohort research", "Queue nlp", "Queue vision")
    )
    expect(nlp).to_contain_text("1 running")
    expect(nlp).to_contain_text("10 cores used · quota 4 · 6 borrowed · borrows at most 8 · 2 more to be had now")
    expect(vision).to_contain_text("6 lent")
    expect(vision).to_contain_text("weight 2")
    expect(nlp).to_contain_text(re.compile(r"holds [\d.]+ % of the fleet · fair is [\d.]+ %, or [\d.]+ % by what"))
    meter = nlp.get_by_role("meter", name="CPU")
    parts = meter.evaluate("bar => [...bar.children].map(part => [part.className, part.offsetLeft, part.offsetWidth])")
    whole = meter.evaluate("bar => bar.offsetWidth")
    assert [name for name, *_ in parts] == ["part part-own", "part part-borrowed", "part part-mark"]
    assert [width / whole for _, _, width in parts[:2]] == pytest.approx([4 / 12, 6 / 12], abs=0.02)
    assert [left / whole for _, left, _ in parts[1:]] == pytest.approx([4 / 12, 4 / 12], abs=0.02)
    inset = [each.bounding_box()["x"] for each in (cohort, nlp)]
    assert inset[0] < inset[1]
    waits = site.at(0).scene.submit(name="patient", queue="vision", choices=(size(cpus=1, gib=1),))
    expect(vision).to_contain_text("1 waiting")
    site.scene.applied(site.scene.stop(waits))


def test_volumes_say_where_they_lie_and_what_uses_them_and_are_removed_after_a_question(browser, site, world):
    with opened(browser, site) as page:
        page.goto(f"{site.url}/volumes")
        rows = page.locator("#volumes tbody tr")
        expect(rows).to_have_count(3)
        used = rows.filter(has_text="datasets")
        expect(used).to_contain_text("1 TiB")
        expect(used.get_by_role("link")).to_contain_text("reads")
        expect(used.get_by_role("button")).to_have_count(0)
        expect(rows.filter(has_text="scratchpad")).to_contain_text("no storage yet")
        lone = rows.filter(has_text="bert-ckpt")
        expect(lone).to_contain_text("on node boreas")
        lone.get_by_role("button", name="Remove bert-ckpt").click()
        page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
        expect(lone).to_contain_text("ready")
        lone.get_by_role("button", name="Remove bert-ckpt").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove it").click()
        expect(lone).to_contain_text("being removed")
    with opened(browser, site, role="viewer") as page:
        page.goto(f"{site.url}/volumes")
        expect(page.locator("#volumes tbody tr")).to_have_count(3)
        expect(page.get_by_role("button", name="Remove", exact=False)).to_have_count(0)


def test_clusters_say_whether_they_take_work_and_why_not(browser, tmp_path):
    with running_site(tmp_path) as fleet, opened(browser, fleet) as page:
        fleet.scene.applied(add("east"), add("west"), see(Contact.REFUSED, "the token has expired", "west"))
        fleet.scene.fleet(cluster="east", nodes=2, cpus=8)
        page.goto(f"{fleet.url}/clusters")
        east, west = page.get_by_label("Cluster east"), page.get_by_label("Cluster west")
        expect(east).to_contain_text("2 of 2 nodes ready")
        expect(east.get_by_role("meter", name="CPU")).to_have_attribute("aria-valuetext", "0 of 16 cores")
        expect(west).to_contain_text("the cluster cannot be used: the token has expired")
        east.get_by_role("button", name="Drain").click()
        expect(east).to_contain_text("drained by ada: nothing new is placed here")
        assert fleet.store.cluster("east").state == "draining"
        east.get_by_role("button", name="Take work again").click()
        expect(east).to_contain_text("ready")
        expect(east).not_to_contain_text("drained")


def test_a_node_is_kept_out_drained_and_let_in_again(browser, tmp_path):
    with running_site(tmp_path) as fleet, opened(browser, fleet) as page:
        fleet.scene.fleet(cluster="east", nodes=2, cpus=8)
        page.goto(f"{fleet.url}/nodes")
        node = page.get_by_label("Node east-0")
        node.get_by_role("button", name="Cordon").click()
        expect(node).to_contain_text("cordoned by ada")
        node.get_by_role("button", name="Drain").click()
        page.get_by_role("dialog").get_by_role("button", name="Drain it").click()
        expect(node).to_contain_text("draining")
        assert fleet.store.node("", "east-0").state == "draining"
        node.get_by_role("button", name="Stop draining").click()
        expect(node).to_contain_text("ready")
        expect(page.get_by_label("Node east-1")).not_to_contain_text("cordoned")


def test_a_cluster_with_an_agent_says_whether_that_is_connected(browser, tmp_path):
    with running_site(tmp_path) as fleet, opened(browser, fleet) as page:
        fleet.scene.applied(add("plant", kind=ClusterKind.AGENT, identity=""))
        page.goto(f"{fleet.url}/clusters")
        plant = page.get_by_label("Cluster plant")
        expect(plant).to_contain_text("agent not connected")
        expect(plant).to_contain_text("waits for its agent to call for the first time")
        lease = lease_of("plant")
        fleet.store.acquire(lease, holder="agent/host", now=fleet.services.clock.now(), seconds=60)
        expect(plant).to_contain_text("agent connected")


def test_only_administrators_are_offered_the_clusters(browser, site):
    with opened(browser, site) as page:
        page.goto(f"{site.url}/runs")
        expect(page.get_by_role("link", name="Clusters")).to_be_visible()
    with opened(browser, site, role="viewer", faults_expected=True) as page:
        page.goto(f"{site.url}/runs")
        expect(page.get_by_role("link", name="Nodes")).to_be_visible()
        expect(page.get_by_role("link", name="Clusters")).to_have_count(0)
        page.goto(f"{site.url}/clusters")
        expect(page.get_by_role("alert")).to_contain_text("may not manage")


@pytest.mark.parametrize("by", ["workload", "project", "day"])
def test_the_lines_of_the_bill_add_up_to_the_total_that_is_shown(page, site, by):
    page.goto(f"{site.url}/cost?by={by}&days=30")
    expect(page.locator("#lines tbody tr").first).to_be_visible()
    expect(page.locator("#chart svg[role=img]")).to_be_visible()
    totals, shown = page.evaluate(
        "[[...document.querySelectorAll('#lines tbody td:last-child')].map(cell => cell.textContent),"
        " document.getElementById('total').textContent]"
    )
    assert sum(map(amount, totals)) == amount(shown) > 300
    expect(page.locator("#lines tfoot td:last-child")).to_have_text(shown)
    days = page.locator("#chart svg[role=img] > g > title")
    assert days.count() == 30
    expect(page.locator("#chart .legend li").first).to_be_visible()


def amount(text: str) -> Decimal:
    return Decimal(re.sub(r"[^\d.]", "", text))


def test_the_bill_is_chosen_by_keyboard_and_kept_in_the_address(page, site):
    page.goto(f"{site.url}/cost")
    page.get_by_label("By run").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#group-title")).to_have_text("Project")
    assert page.url == f"{site.url}/cost?by=project&days=14"


def test_events_arrive_newest_first_and_are_filtered_by_run(page, site, world):
    page.goto(f"{site.url}/events")
    first = page.locator("#events tbody tr").first
    expect(first).to_be_visible()
    work = site.at(0).scene.submit(name="herald")
    expect(first).to_contain_text(work.id)
    expect(first).to_contain_text("pending")
    expect(page.locator("#events")).not_to_contain_text("usage recorded")
    page.get_by_label("Usage records").check()
    expect(page.locator("#events")).to_contain_text("usage recorded")
    page.get_by_label("Run", exact=True).fill(world.succeeded.id)
    page.get_by_role("button", name="Filter").click()
    expect(first).to_contain_text("all pods ended with exit code 0")
    rows = page.locator("#events tbody tr")
    assert all(world.succeeded.id in text for text in rows.all_text_contents())
    expect(rows.last).to_contain_text("accepted")


def test_no_event_is_missed_or_doubled_in_a_storm(page, site):
    page.goto(f"{site.url}/events")
    expect(page.locator("#events tbody tr").first).to_be_visible()
    ids = [site.at(0).scene.submit(name="storm").id for _ in range(150)]
    expect(page.locator("#events tbody tr").first).to_contain_text(ids[-1])
    shown = page.locator("#events tbody td:nth-child(2) a").all_text_contents()
    assert [name for name in shown if name in ids] == ids[::-1]


# Every page


def paths(world: World) -> dict[str, str]:
    runs = {name: f"/runs/{getattr(world, name).id}" for name in ("running", "waiting", "succeeded", "failed")}
    return {
        "runs": "/runs?all=true",
        **{f"run-{name}": path for name, path in runs.items()},
        "endpoints": "/endpoints",
        "queues": "/queues",
        "clusters": "/clusters",
        "nodes": "/nodes",
        "volumes": "/volumes",
        "cost": "/cost",
        "events": "/events",
        "sign-in": "/sign-in",
    }


@pytest.mark.parametrize(("scheme", "width"), [("light", NARROW), ("dark", WIDE)])
def test_every_page_fits_and_can_be_read(browser, site, world, scheme, width, *, tmp_path):
    with opened(browser, site, color_scheme=scheme, reduced_motion="reduce") as page:
        page.set_viewport_size({"width": width, "height": 900})
        for name, path in paths(world).items():
            settled(page, site.url + path)
            for summary in page.locator("summary").all():
                summary.click()
            picture = page.screenshot(path=tmp_path / f"{name}-{scheme}-{width}.png", full_page=True)
            assert len(picture) > 10_000
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
            assert page.evaluate(FAINT) == [], name
            assert page.evaluate(UNNAMED) == [], name


FAINT = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest("script, noscript, :disabled")) continue;
    const inPicture = node.closest("svg");
    if (node.localName === "title" || node.localName === "desc") continue;
    const style = getComputedStyle(node);
    const bar = node.classList.contains("in-bar") && node.previousElementSibling;
    const back = bar ? parse(getComputedStyle(bar).fill) : ground(node);
    const [one, other] = [luminance(parse(inPicture ? style.fill : style.color)), luminance(back)];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) faint.push([walker.currentNode.data.slice(0, 40), contrast]);
  }
  return faint;
}"""
"""Text below the contrast of WCAG 2.2, 1.4.3 (AA)."""

UNNAMED = """() => [...document.querySelectorAll(
    "a, button, input, select, [role=img], [role=log], [role=meter], dialog, section")]
  .filter((node) => node.checkVisibility())
  .filter((node) => {
    const by = (node.getAttribute("aria-labelledby") || "").split(" ").filter(Boolean);
    const label = node.getAttribute("aria-label") || by.map((id) => document.getElementById(id)?.textContent).join("");
    const labels = [...(node.labels || [])].map((each) => each.textContent).join("");
    return !(label || labels || node.textContent.trim() || node.title);
  })
  .map((node) => node.outerHTML.slice(0, 80))"""
"""What a screen reader could only call by its kind."""


def test_all_links_lead_somewhere(page, site, world):
    seen: set[str] = set()
    for path in paths(world).values():
        settled(page, site.url + path)
        seen |= set(page.eval_on_selector_all("a[href], link[href]", "nodes => nodes.map(node => node.href)"))
    assert all(address.startswith(site.url) for address in seen)
    pages = sorted({address.partition("#")[0] for address in seen})
    assert len(pages) > 20
    for address in pages:
        assert page.request.get(address).ok, address


def test_everything_is_reached_and_seen_by_keyboard(page, site, world):
    run_page(page, site, world.running)
    expect(page.get_by_role("log")).to_contain_text("epoch 1")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    reached = []
    for _ in range(60):
        name, outlined = page.evaluate(
            "(node => [node.id || node.textContent.trim(), getComputedStyle(node).outlineStyle !== 'none'])"
            "(document.activeElement)"
        )
        reached.append(name)
        assert outlined, name
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
    for name in ("Runs", "Events", "sign-out", "stop", "rank", "wrap", "pause", "download", "log", "Copy", "API"):
        assert name in reached


def test_a_lost_connection_is_told_and_recovers(browser, tmp_path):
    with running_site(tmp_path) as fragile:
        fragile.fleet()
        with opened(browser, fragile, faults_expected=True) as page:
            settled(page, fragile.url + "/runs")
            expect(page.get_by_text("Nothing waits")).to_be_visible()
            fragile.server.stop()
            banner = page.locator("#banner")
            expect(banner).to_contain_text("Connection lost")
            fragile.at(0).scene.submit(name="meanwhile")
            fragile.server.start(fragile.app)
            expect(banner).to_be_hidden()
            expect(row(page, "meanwhile")).to_be_visible()
            fragile.scene.submit(name="afterwards")
            expect(row(page, "afterwards")).to_be_visible()


def test_a_hidden_page_lets_go_of_its_streams(page, site, world):
    run_page(page, site, world.running)
    expect(page.get_by_role("log")).to_contain_text("epoch 1")
    poll(lambda: site.app.state.streams.open, 2)
    hide(page, site)
    site.cluster.logs[f"{world.running.id}-1-0"] += b"while away\n"
    unhide(page)
    expect(page.get_by_role("log")).to_contain_text("while away")
    assert page.get_by_role("log").inner_text().count("epoch 1 loss") == 1


def test_a_log_that_broke_in_one_attempt_goes_on_with_the_whole_of_the_next(page, site):
    work = site.at(30).scene.submit(name="lazarus")
    site.place(work, "atlas")
    site.running(work)
    site.cluster.logs[f"{work.id}-1-0"] = b"the first life, of some length\n"
    run_page(page, site, work)
    log = page.get_by_role("log")
    expect(log).to_contain_text("the first life")
    hide(page, site)
    site.ended(work, end=End.LOST, exit_code=None)
    work = site.advance(work, Phase.PENDING, Code.BACKING_OFF, attempt=2, seconds=1)
    site.place(work, "atlas")
    site.cluster.logs[f"{work.id}-2-0"] = b"the second life, of which no letter is missing\n"
    site.running(work)
    unhide(page)
    expect(log).to_contain_text("end of attempt 1; attempt 2 follows")
    expect(log).to_contain_text("the second life, of which no letter is missing")
    assert log.inner_text().count("the first life") == 1


def hide(page, site):
    """As if another page had come before it; it lets go of all streams."""
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true});"
        "window.away = true; document.dispatchEvent(new Event('visibilitychange'))"
    )
    poll(lambda: site.app.state.streams.open, 0)


def unhide(page):
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
