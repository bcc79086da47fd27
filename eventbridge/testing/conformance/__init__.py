"""The conformance suite: each rule of the contract, as tests for any host loop; `suite` is the whole of it."""
