"""Pictures of what perturbations and schedules do. It reads, and changes nothing."""
