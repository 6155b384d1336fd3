"""The lost-task proof: Celery loses a message under ``kill -9``, and no work with it.

A worker waits for messages in a blocking pop. The server hands one to the socket of a
worker that is stopped: it is off the queue, and in no list of unacknowledged messages yet,
since only the worker writes that. ``kill -9``, and the message is nowhere.
"""

from __future__ import annotations

from provenance.bootstrap import sending
from tests.faults.support.bells import Bell, hints, stop_in_its_pop
from tests.faults.support.harness import World
from tests.faults.support.processes import until
from tests.support.runs import complete_run, some_run


def test_a_task_vanishes_under_kill_9_and_the_watch_brings_the_work_back(world: World) -> None:
    bell = Bell(world)
    world.start("hashing")
    world.wait_ready("hashing")
    bell.ring()  # the connection is warm, and the worker pops messages
    assert until(lambda: hints(world) == 0, 20)
    trainer = world.trainer(epochs=1)
    trainer.finish()
    events = len(trainer.promised())
    stop_in_its_pop(world)
    bell.ship()
    assert hints(world) == 0, "the stopped worker was not handed the message"
    world.kill("hashing")
    assert hints(world) == 0, "the message is still somewhere"
    assert bell.transport.backlog() > 0

    world.start("hashing")  # no beat, and nobody rings
    world.wait_home(trainer.run, events, 30)


def test_reports_are_written_though_every_hint_to_verify_is_gone(world: World) -> None:
    """20 runs become final while nobody verifies; what rings for them is thrown away."""
    producers = [complete_run(run=some_run()) for _ in range(20)]
    transport = sending.open_transport(world.settings)
    transport.append([producer.batch() for producer in producers])
    world.start("hashing", "anchor-local")
    for name in ("hashing", "anchor-local"):
        world.wait_ready(name)
    with world.redis.client() as client:
        assert until(lambda: client.llen("verify") > 0, 30)
        world.kill("anchor-local")  # nobody rings again
        client.delete("verify")
    assert not (world.base / "reports").exists()
    world.start("beat", "confirm", "anchor-local")
    pages = [world.base / "reports" / str(each.run) / "report.html" for each in producers]
    assert until(lambda: all(page.exists() for page in pages), 60)
    transport.close()
