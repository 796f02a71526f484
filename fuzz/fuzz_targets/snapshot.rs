#![cfg_attr(feature = "libfuzzer", no_main)]

stillpoint_fuzz::target!(stillpoint_fuzz::snapshot::check);
