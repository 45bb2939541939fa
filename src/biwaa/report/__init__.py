"""Pictures and the HTML page: reads run and bench folders only, so it works on any finished run without training."""
