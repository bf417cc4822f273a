"""The promises, one function each: it raises AssertionError, with what was seen, where a callback breaks it."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_xai.testing.assertions import Promise
from lightning_xai.testing.promises import processes, readings, schedule, training

PROMISES: Mapping[str, Promise] = {
    promise.__name__: promise
    for promise in (
        training.trains_the_same,
        training.fails_softly,
        training.refuses_bad_settings,
        training.works_in_both_namespaces,
        training.works_in_bf16,
        schedule.reads_when_it_is_due,
        schedule.can_be_monitored,
        schedule.resumes,
        schedule.starts_clean,
        readings.pickles,
        readings.stores_what_it_measures,
        readings.sees_no_chunks,
        readings.reports_purely,
        readings.draws_behind_training,
    )
}
"""What takes seconds, by name."""

SLOW: Mapping[str, Promise] = {
    promise.__name__: promise
    for promise in (
        training.trains_the_same_in_every_setting,
        training.keeps_its_size,
        training.works_compiled,
        processes.reads_the_same_on_every_rank,
    )
}
"""What takes longer."""
