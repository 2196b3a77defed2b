"""Elastic Load Balancing v2: what moto's lacks, and what the lab's data plane needs to carry traffic. Pure.

``snapshot`` is what the data plane is told, ``health`` how it judges targets, ``nginx`` the configuration it makes of
both; ``targets`` and ``names`` are AWS's side.
"""
