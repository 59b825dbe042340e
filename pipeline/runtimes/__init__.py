"""One adapter a runtime: load and run. Light: also runs on devices."""
