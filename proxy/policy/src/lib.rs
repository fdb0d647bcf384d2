//! tulle-policy
