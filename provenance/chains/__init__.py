"""The networks a head can be anchored on, one file each; imported when first used."""
