"""The pages: frames from templates, filled in the browser from the same public API that everybody else uses."""

from mainstay.web.pages import mount_pages

__all__ = ["mount_pages"]
