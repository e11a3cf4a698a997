"""One graph, run purely: document, graph, state, scheduler, events, ports."""
