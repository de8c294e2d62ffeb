//! Who asks: facts from the kernel and nothing else.
