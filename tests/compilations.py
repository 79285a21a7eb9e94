"""Counting what is compiled inside a `with` block."""

import jax

from subtune_jax.study import timing


class counted:  # noqa: N801
    """The programs compiled within a `with`."""

    def __enter__(self):
        self.programs = []
        jax.monitoring.register_event_duration_secs_listener(self.listen)
        return self.programs

    def listen(self, event, seconds, **rest):
        if event == timing.COMPILING:
            self.programs.append(seconds)

    def __exit__(self, *error):
        jax.monitoring.unregister_event_duration_listener(self.listen)
