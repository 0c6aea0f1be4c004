"""What `moorline doctor` looks at before and after a deploy. It changes nothing."""
