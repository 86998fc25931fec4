"""An experiment: checked as a whole, then run stage by stage into its folder."""
