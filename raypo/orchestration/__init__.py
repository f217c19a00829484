"""Everything that runs on Ray: Train, Tune, Data and the pipeline around the other rooms."""
