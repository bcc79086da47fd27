"""What all of Xen's drivers share and nothing here depends on: the libraries, their log, reasons, the close gate."""
