"""Everything that touches somebody else's library.  Import it as ``eventbridge.adapters``, never as a top-level
package.
"""
