"""``python -m provenance.cli``: the ``provenance`` command."""

from provenance.cli import main

raise SystemExit(main())
