"""What requests cost, beside others in the same run: `./dev bench --help`.

corpus.py    real modules, and what the module proxy of this machine says of them, asked once
targets.py   who is measured: Entrepot, nginx, and peers given by URL; do they all answer the same?
load.py      the programs that ask: wrk for as much as a server can do, vegeta for a steady rate
rates.py     scenarios `go` and `files`: requests a second, p50, p99 and their ratios, in interleaved rounds
images.py    scenario `oci`: the same for pulls and pushes of manifests and blobs
clients.py   clients that push, and that ask by HEAD
crowd.py     scenarios `black-hole` and `slow-clients`: what those wait who ask for what is here, while others hold the server up
machine.py   what it was measured on
"""
