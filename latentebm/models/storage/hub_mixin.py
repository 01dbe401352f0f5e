"""The mixin of huggingface_hub, or a word on how to install it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["PyTorchModelHubMixin", "snapshot_download"]

if TYPE_CHECKING:
    from huggingface_hub import PyTorchModelHubMixin, snapshot_download
else:
    try:
        from huggingface_hub import PyTorchModelHubMixin, snapshot_download
    except ImportError:

        def snapshot_download(*_: Any, **__: Any) -> NoReturn:
            """Raise: huggingface_hub is not installed."""
            fix = 'pip install "latentebm[hub]"'
            raise ImportError(f"huggingface_hub: expected for the hub, not found; {fix}")

        class PyTorchModelHubMixin:
            """Stands in, so that everything else can be imported."""

            save_pretrained = from_pretrained = push_to_hub = snapshot_download

            def __init_subclass__(cls, **_: Any) -> None:
                super().__init_subclass__()
