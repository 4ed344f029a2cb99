"""Planning: bundle + image contract + profiles -> profile -> workload plan. Pure: nothing here touches the node."""
