"""Which operators each runtime takes."""
