"""The one progress bar."""

from tqdm import tqdm


def bar(total: float | None, description: str, show: bool | None, **options) -> tqdm:
    """A bar over ``total`` steps on stderr; ``show`` True or False decides, None shows it in a terminal only.

    It appears after a second and leaves nothing behind. ``options`` are those of tqdm (``unit``).
    """
    hidden = None if show is None else not show
    return tqdm(total=total, desc=description, leave=False, delay=1.0, disable=hidden, **options)
