"""Roots that hardware's vendors publish, by the SHA-256 of the certificate's DER."""

from __future__ import annotations

from typing import Final

VENDOR_ROOTS: Final = {
    "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3": "Intel SGX Root CA",
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": "AMD ARK-Milan",
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": "AMD ARK-Genoa",
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": "AMD ARK-Turin",
    "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48": "NVIDIA Device Identity CA",
}
"""https://api.portal.trustedservices.intel.com (Provisioning Certification Service),
https://kdsintf.amd.com/vcek/v1/{product}/cert_chain, and behind the evidence of any NVIDIA GPU."""
