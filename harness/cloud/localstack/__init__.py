"""The adapter to LocalStack community 4.14.0.

Two halves. Outside, in the harness's Python: :mod:`.environment`, :mod:`.process`, :mod:`.bootstrap`, :mod:`.control`.
Inside LocalStack's process, loaded through its entry points: :mod:`.plugin` and what it installs. Only
:mod:`.internals` names anything of LocalStack's or moto's.
"""
