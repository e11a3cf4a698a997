"""Documents taken apart into blocks, images and pages, each in a bounded process of its own."""
